//! Enums whose values have a name in records and metrics, and a description in the documentation: each is written once.

macro_rules! named {
    ($(#[$attribute:meta])* pub enum $name:ident {
        $($(#[doc = $text:literal])+ $variant:ident = $value:literal,)+
    }) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum $name {
            $($(#[doc = $text])+ $variant,)+
        }

        impl $name {
            /// All of them.
            pub const ALL: [Self; [$($value),+].len()] = [$(Self::$variant),+];

            /// The name in records and metrics.
            #[must_use]
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $value,)+
                }
            }

            /// What it means, line by line.
            #[must_use]
            pub const fn text(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($text),+],)+
                }
            }
        }
    };
}

pub(crate) use named;
