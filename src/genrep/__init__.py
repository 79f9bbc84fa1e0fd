"""genrep: deep generative models of every family behind one interface."""
