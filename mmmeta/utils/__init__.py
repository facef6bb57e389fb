"""What every room uses: errors, files that are written whole, resources, and what is installed."""
