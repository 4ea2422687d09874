//! Batches of encoded records to a collector or a console.
