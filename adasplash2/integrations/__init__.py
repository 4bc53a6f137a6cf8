"""How do libraries of models come to use entmax attention?"""
