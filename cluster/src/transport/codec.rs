//! Frames for tonic.

use super::frame::Frame;
use std::marker::PhantomData;
use tonic::Status;
use tonic::codec::{BufferSettings, DecodeBuf, EncodeBuf};

/// Small frames that wait together go out together, and a big one is not copied many times while it grows.
const BUFFER: usize = 64 << 10;

/// Sends `E` and receives `D`.
pub(super) struct Codec<E, D>(PhantomData<fn(E) -> D>);

impl<E, D> Codec<E, D> {
    pub fn new() -> Self {
        Codec(PhantomData)
    }
}

impl<E: Frame, D: Frame> tonic::codec::Codec for Codec<E, D> {
    type Encode = E;
    type Decode = D;
    type Encoder = Encoder<E>;
    type Decoder = Decoder<D>;

    fn encoder(&mut self) -> Encoder<E> {
        Encoder(PhantomData)
    }

    fn decoder(&mut self) -> Decoder<D> {
        Decoder(PhantomData)
    }
}

pub(super) struct Encoder<E>(PhantomData<fn(E)>);

impl<E: Frame> tonic::codec::Encoder for Encoder<E> {
    type Item = E;
    type Error = Status;

    fn encode(&mut self, frame: E, out: &mut EncodeBuf<'_>) -> Result<(), Status> {
        out.reserve(frame.wire_bytes());
        frame.encode(out);
        Ok(())
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, BUFFER)
    }
}

pub(super) struct Decoder<D>(PhantomData<fn() -> D>);

impl<D: Frame> tonic::codec::Decoder for Decoder<D> {
    type Item = D;
    type Error = Status;

    fn decode(&mut self, bytes: &mut DecodeBuf<'_>) -> Result<Option<D>, Status> {
        D::decode(bytes).map(Some).map_err(|malformed| Status::invalid_argument(malformed.to_string()))
    }

    fn buffer_settings(&self) -> BufferSettings {
        BufferSettings::new(BUFFER, BUFFER)
    }
}
