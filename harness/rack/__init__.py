"""Many boards on one host: who holds which, which are broken, which is taken next."""
