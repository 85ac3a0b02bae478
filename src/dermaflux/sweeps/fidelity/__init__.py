"""Tables of generators: published fidelity beside that of a grid's pools."""
