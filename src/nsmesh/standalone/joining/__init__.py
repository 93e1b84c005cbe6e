"""Several hosts, one mesh: the first host lets others join, and vouches for what lives on them."""
