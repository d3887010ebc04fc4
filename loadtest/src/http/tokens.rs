//! The access tokens of the organizations, renewed by one thread and used by others.

use std::fmt;
use std::sync::Arc;

use arc_swap::ArcSwap;

/// The longest token.
pub const TOKEN_BYTES_MAX: usize = 8 << 10;

/// By organization, those that are known.
pub type Table = Vec<Option<Arc<str>>>;

/// A table that threads share; clones are the same table. It is never printed.
#[derive(Clone, Default)]
pub struct Tokens(Arc<ArcSwap<Table>>);

/// A token that cannot stand in a head.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[error("the access token is empty, too long or not printable")]
pub struct TokenUnusable;

impl Tokens {
    /// Without any token.
    pub fn new() -> Tokens {
        Tokens::default()
    }

    /// Gives an organization a token, from its next request on.
    pub fn set(&self, organization: u16, token: &str) -> Result<(), TokenUnusable> {
        let fits = (1..=TOKEN_BYTES_MAX).contains(&token.len());
        if !fits || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err(TokenUnusable);
        }
        let token: Arc<str> = token.into();
        self.0.rcu(|table| {
            let mut table = Table::clone(table);
            let at = usize::from(organization);
            if table.len() <= at {
                table.resize(at + 1, None);
            }
            table[at] = Some(Arc::clone(&token));
            table
        });
        Ok(())
    }

    /// The table as it is now.
    pub fn table(&self) -> arc_swap::Guard<Arc<Table>> {
        self.0.load()
    }
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "Tokens({})", self.0.load().iter().flatten().count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_shared_and_not_printed() {
        let tokens = Tokens::new();
        let shared = tokens.clone();
        tokens.set(2, "secret").unwrap();
        assert_eq!(shared.table().get(2).unwrap().as_deref(), Some("secret"));
        assert_eq!(shared.table()[0], None);
        assert_eq!(format!("{shared:?}"), "Tokens(1)");
        for wrong in ["", "a b", "a\r\nHost: x", "é", &"x".repeat(TOKEN_BYTES_MAX + 1)] {
            assert_eq!(tokens.set(0, wrong), Err(TokenUnusable));
        }
    }
}
