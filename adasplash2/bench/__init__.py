"""How fast are the kernels, next to what else there is, and how many passes do rows take?"""
