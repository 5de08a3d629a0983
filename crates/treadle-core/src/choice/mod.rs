//! The choice: profile, model, race, decide, record.
