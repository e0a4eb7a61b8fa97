"""What goes wrong: crashes, failed reads, reads that lie."""
