"""What does a step cost by tiles, by single keys, and as chosen?"""
