//! Black-box tests: the real binary in front of real Redis nodes and real Sentinels, all on loopback.

mod deployment;
