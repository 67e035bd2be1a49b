"""Names of published autoencoders of chest radiographs <-> our trees."""
