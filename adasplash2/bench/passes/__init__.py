"""How many refinement passes do rows take?"""
