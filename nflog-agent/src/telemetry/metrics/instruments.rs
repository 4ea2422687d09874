//! Families as instruments of the OpenTelemetry SDK.

use std::sync::Arc;

use opentelemetry::KeyValue;
use opentelemetry::metrics::Meter;

use super::families::{CounterFamily, Families, Instrument};

/// Makes an instrument of each family.
pub(super) fn register(meter: &Meter, families: &Families) {
    for at in 0..families.all().len() {
        observe(meter, families.all(), at);
    }
}

fn observe(meter: &Meter, families: &Arc<[CounterFamily]>, at: usize) {
    let CounterFamily {
        name,
        instrument,
        unit,
        description,
        label,
        ..
    } = families[at];
    let all = Arc::clone(families);
    let attributes = move |value: &str| label.map(|label| KeyValue::new(label, value.to_owned()));
    match instrument {
        Instrument::Counter => {
            meter
                .u64_observable_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    (all[at].read)(&mut |value, count| {
                        observer.observe(count, attributes(value).as_slice());
                    });
                })
                .build();
        }
        Instrument::UpDownCounter => {
            meter
                .i64_observable_up_down_counter(name)
                .with_unit(unit)
                .with_description(description)
                .with_callback(move |observer| {
                    (all[at].read)(&mut |value, count| {
                        observer.observe(signed(count), attributes(value).as_slice());
                    });
                })
                .build();
        }
    }
}

fn signed(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}
