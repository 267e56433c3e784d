"""A believable month of a company's agents, for people who want to see what a full ledger looks like.

cast       who works there, when, and what a piece of work uses
month      what they do and what is done about it, step by step, from a seed; pure
filling    puts it down in a ledger, by the rules that hold for everybody
"""
