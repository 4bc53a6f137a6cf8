"""Which row of the launch table is fastest?"""
