"""DermaFlux: synthetic skin-lesion images and whether they improve malignancy classifiers."""
