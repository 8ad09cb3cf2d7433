//! Single questions whose trace is known beforehand.
