//! treadle-probe
