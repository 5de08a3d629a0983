//! treadle-shm
