//! Why a side ended a connection: the application error codes of QUIC.

/// Why a side ended a connection.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum CloseCode {
    /// The server stops; connect again later.
    Draining,
    /// More than the device's budget waits in the server.
    Flooded,
    /// A frame is longer than its kind allows, or what came is no frame.
    FrameTooLong,
    /// A frame was begun and did not go on for too long.
    FrameUnfinished,
    /// The device did not say who it is in time.
    HelloMissing,
    /// The side that closes needs the connection no more.
    Normal,
    /// The device takes what it is sent too slowly.
    NotReading,
    /// The certificate was revoked, has expired or names no active terminal.
    Refused,
    /// The same terminal has connected anew.
    Superseded,
    /// There is no version that both speak.
    UnknownVersion,
}

impl CloseCode {
    const ALL: [CloseCode; 10] = [
        CloseCode::Draining,
        CloseCode::Flooded,
        CloseCode::FrameTooLong,
        CloseCode::FrameUnfinished,
        CloseCode::HelloMissing,
        CloseCode::Normal,
        CloseCode::NotReading,
        CloseCode::Refused,
        CloseCode::Superseded,
        CloseCode::UnknownVersion,
    ];

    /// The number on the wire; never reused.
    pub fn number(self) -> u32 {
        match self {
            CloseCode::Normal => 0,
            CloseCode::Refused => 1,
            CloseCode::UnknownVersion => 2,
            CloseCode::FrameTooLong => 3,
            CloseCode::Flooded => 4,
            CloseCode::NotReading => 5,
            CloseCode::Superseded => 6,
            CloseCode::Draining => 7,
            CloseCode::HelloMissing => 8,
            CloseCode::FrameUnfinished => 9,
        }
    }

    /// The code of a closed connection, where its other side has given one of ours.
    pub fn of(error: &quinn::ConnectionError) -> Option<CloseCode> {
        let quinn::ConnectionError::ApplicationClosed(closed) = error else { return None };
        let is_it = |code: &CloseCode| quinn::VarInt::from_u32(code.number()) == closed.error_code;
        CloseCode::ALL.into_iter().find(is_it)
    }
}

impl From<CloseCode> for quinn::VarInt {
    fn from(code: CloseCode) -> quinn::VarInt {
        quinn::VarInt::from_u32(code.number())
    }
}
