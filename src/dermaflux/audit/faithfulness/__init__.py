"""Do synthetic images show what was asked for, can they be told from real ones, and by what?"""
