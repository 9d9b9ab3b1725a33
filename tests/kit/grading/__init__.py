"""Grade a class: every submission contained, judged by the same contracts, written in the formats that people use."""
