"""How fast and how exact are maps of rows?"""
