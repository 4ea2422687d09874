//! After warm-up the OTLP encoder allocates per batch, not per record.
#![cfg(feature = "agent")]

mod otlp_receiver;

use allocation_counter::measure;
use nflog_agent::record::{Encoder as _, Otlp, Resource};
use nflog_agent::telemetry::ledger::Ledger;
use otlp_receiver::sample;

#[test]
fn a_record_costs_no_allocation() {
    let ledger = Ledger::new();
    let mut encoder = Otlp::new(Resource::new(), &ledger);
    let samples = sample::varied();
    let batch = |encoder: &mut Otlp| {
        for _ in 0..10 {
            for sample in &samples {
                encoder.push(&sample.record());
            }
        }
    };
    // Warm-up.
    for _ in 0..2 {
        batch(&mut encoder);
        encoder.take().exported(0);
    }
    // Long enough to free buffers that are in use, if the encoder took them for idle.
    for _ in 0..40 {
        let pushing = measure(|| batch(&mut encoder));
        assert_eq!(pushing.count_total, 0, "400 records: {pushing:?}");
        let taking = measure(|| encoder.take().exported(0));
        assert!(taking.count_total <= 3, "one batch: {taking:?}");
    }
    assert_eq!(ledger.snapshot().exported, 42 * 400);
}
