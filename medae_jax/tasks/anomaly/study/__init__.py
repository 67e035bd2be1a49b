"""Many scores of the same trained networks, compared by patients that neither network nor fit has seen."""
