//! Tickets (SPEC §19): what one person gives another so that their nodes are connected.
//!
//! ```text
//! "peer:" base32([encoding, 4 bytes that check it])
//! ```
//!
//! A ticket is no secret and gives no right: it says where a node is and whose it claims to be.
//! Whoever is connected is not trusted for it.

use std::{fmt, str::FromStr};

use minicbor::{
    Decode, Decoder, Encode, Encoder,
    decode::Error as Malformed,
    encode::{Error as WriteFailed, Write},
};

use crate::{
    encode::{self, DecodeError, list, refuse},
    id::BASE32,
    key::{AttesterKey, Verifier},
    limits,
};

/// What the text of a ticket begins with.
const KIND: &str = "peer:";

/// Bytes by which typing errors, and texts that were cut, are noticed.
const CHECK_BYTES: usize = 4;

const CHECK_CONTEXT: &str = "assize 2026-11 ticket check";

/// Where a node is, and whose.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The node's key.
    pub node: [u8; 32],
    /// The key by which its owner says what was built there; `None` if he builds nothing.
    pub attester: Option<AttesterKey>,
    /// Where it can be reached, the best first, as multiaddresses without the node's id: at least
    /// one, at most [`limits::TICKET_ADDRESSES`], each of at most [`limits::ADDRESS_BYTES`] of
    /// visible ASCII. Whether it is an address is for others to say.
    pub addresses: Vec<String>,
}

/// Why a text is no ticket.
#[derive(Debug, thiserror::Error)]
pub enum TicketError {
    /// It does not begin with `peer:`, or is too long.
    #[error("not a ticket, which begins with `peer:` and has at most {limit} characters", limit = limits::TICKET_BYTES)]
    Shape,
    /// A character that no ticket has.
    #[error("a character that no ticket has, or not all of it is there")]
    Alphabet,
    /// The bytes that check it do not fit the others.
    #[error("a character is missing or wrong: the check does not fit")]
    Check,
    /// What it says is not understood.
    #[error("what the ticket says is not understood")]
    Content(#[from] DecodeError),
}

fn check(encoding: &[u8]) -> [u8; CHECK_BYTES] {
    let hash = blake3::derive_key(CHECK_CONTEXT, encoding);
    hash[..CHECK_BYTES].try_into().expect("a hash is longer")
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut bytes = encode::to_bytes(self);
        bytes.extend(check(&bytes));
        write!(f, "{KIND}{}", BASE32.encode(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = TicketError;

    fn from_str(text: &str) -> Result<Self, TicketError> {
        // As it is in a QR code, which has room for more if all letters are large.
        let text = if text.len() > limits::TICKET_BYTES {
            return Err(TicketError::Shape);
        } else {
            text.to_ascii_lowercase()
        };
        let body = text.strip_prefix(KIND).ok_or(TicketError::Shape)?;
        let mut bytes = BASE32.decode(body.as_bytes()).map_err(|_| TicketError::Alphabet)?;
        let at = bytes.len().checked_sub(CHECK_BYTES).ok_or(TicketError::Check)?;
        let found = bytes.split_off(at);
        if check(&bytes) != *found {
            return Err(TicketError::Check);
        }
        Ok(encode::from_bytes(&bytes, limits::TICKET_BYTES)?)
    }
}

const VERSION: u8 = 1;

impl Encode<()> for Ticket {
    fn encode<W: Write>(&self, e: &mut Encoder<W>, _: &mut ()) -> Result<(), WriteFailed<W::Error>> {
        let Self { node, attester, addresses } = self;
        e.array(4)?.u8(VERSION)?.bytes(node)?.encode(attester)?;
        list::encode(e, addresses.iter())
    }
}

impl<'b> Decode<'b, ()> for Ticket {
    fn decode(d: &mut Decoder<'b>, _: &mut ()) -> Result<Self, Malformed> {
        encode::array(d, 4)?;
        let at = d.position();
        match d.u8()? {
            VERSION => {}
            other => {
                return Err(refuse(at, format!("a ticket of version {other}; this is version {VERSION}")));
            }
        }
        let at = d.position();
        let node = d.bytes()?.try_into().map_err(|_| refuse(at, "a node's key has 32 bytes"))?;
        let at = d.position();
        let attester: Option<AttesterKey> = d.decode()?;
        if let Some(Err(weak)) = attester.map(Verifier::new) {
            return Err(refuse(at, weak));
        }
        let at = d.position();
        let addresses: Vec<String> = list::decode(d, limits::TICKET_ADDRESSES)?;
        if addresses.is_empty() {
            return Err(refuse(at, "a ticket without an address"));
        }
        let good = |address: &String| {
            (1..=limits::ADDRESS_BYTES).contains(&address.len())
                && address.bytes().all(|b| b.is_ascii_graphic())
        };
        match addresses.iter().find(|address| !good(address)) {
            Some(bad) => Err(refuse(at, format!("`{}` is no address", bad.escape_default()))),
            None => Ok(Self { node, attester, addresses }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::key::SigningKey;

    fn ticket(addresses: &[&str]) -> Ticket {
        let key = SigningKey::from_bytes(&[7; 32]);
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        Ticket { node: [9; 32], attester: Some(AttesterKey::of(&key)), addresses }
    }

    #[test]
    fn what_is_written_is_read() {
        let mut ticket = ticket(&["/ip4/192.0.2.1/tcp/4720", "/dns/example.org/udp/4720/quic-v1"]);
        for attester in [ticket.attester, None] {
            ticket.attester = attester;
            let text = ticket.to_string();
            assert_eq!(text.parse::<Ticket>().unwrap(), ticket);
            assert_eq!(text.to_uppercase().parse::<Ticket>().unwrap(), ticket, "as a QR code has it");
        }
    }

    #[test]
    fn the_longest_is_read() {
        let address = "a".repeat(limits::ADDRESS_BYTES);
        let ticket = ticket(&[&*address; limits::TICKET_ADDRESSES]);
        assert_eq!(ticket.to_string().parse::<Ticket>().unwrap(), ticket);
    }

    #[test]
    fn typing_errors_are_noticed() {
        let text = ticket(&["/ip4/192.0.2.1/tcp/4720"]).to_string();
        for at in KIND.len()..text.len() {
            let other = if &text[at..=at] == "a" { "b" } else { "a" };
            let wrong = format!("{}{other}{}", &text[..at], &text[at + 1..]);
            assert!(wrong.parse::<Ticket>().is_err(), "{wrong}");
            assert!(text[..at].parse::<Ticket>().is_err(), "cut at {at}");
        }
        for wrong in ["", "peer:", "key:aaaa", &text[1..], &format!("{text}aa"), &"a".repeat(10_000)] {
            assert!(wrong.parse::<Ticket>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_breaks_a_rule_is_refused() {
        let many = vec!["/a"; limits::TICKET_ADDRESSES + 1];
        let long = "a".repeat(limits::ADDRESS_BYTES + 1);
        for bad in [&[][..], &[""], &["/ip4/1.2.3.4\n"], &["/ipé"], &[&long], &many] {
            let text = ticket(bad).to_string();
            assert!(
                matches!(text.parse::<Ticket>(), Err(TicketError::Content(_) | TicketError::Shape)),
                "{bad:?}"
            );
        }
    }
}
