"""Ways into other programs: each module here is imported by the program that it is for."""
