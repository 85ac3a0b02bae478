"""Memorisation: is a synthetic image one of the training images?"""
