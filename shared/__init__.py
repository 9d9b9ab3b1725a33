"""What the book taught before an exercise, and nothing that an exercise asks for.

config -> agent -> api is the plain service of section 19.2; offline is its stand-in model; demo plays a script.
"""
