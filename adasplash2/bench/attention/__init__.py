"""How fast is attention, next to what else a user could call?"""
