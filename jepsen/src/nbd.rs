//! A small NBD client: one connection, one request at a time, so that every answer belongs to a known request.

use anyhow::{Context, Result, bail, ensure};
use std::fmt;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const OPTION_GO: u32 = 7;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;

/// What to ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Command {
    /// Bytes.
    Read = 0,
    /// Bytes follow.
    Write = 1,
    /// Good-bye.
    Disconnect = 2,
    /// What was answered is to be durable.
    Flush = 3,
    /// The range is not needed any more.
    Trim = 4,
}

/// The flag of a write that is durable when it is answered.
const FUA: u16 = 1;

/// Why a request had no success.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// The server answered with this error number.
    Answered(u32),
    /// There was no answer.
    Gone(String),
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Answered(error) => write!(f, "failed with error {error}"),
            Failure::Gone(why) => f.write_str(why),
        }
    }
}

/// A connection to one export.
pub struct Nbd {
    stream: UnixStream,
    size_bytes: u64,
    cookie: u64,
}

impl Nbd {
    /// Connects to an export; answers that take longer than `patience` are errors.
    pub fn connect(socket: &Path, export: &str, patience: Duration) -> Result<Nbd> {
        let stream = UnixStream::connect(socket).with_context(|| format!("cannot connect to {}", socket.display()))?;
        stream.set_read_timeout(Some(patience))?;
        let mut nbd = Nbd { stream, size_bytes: 0, cookie: 0 };
        nbd.negotiate(export)?;
        Ok(nbd)
    }

    fn negotiate(&mut self, export: &str) -> Result<()> {
        let greeting: [u8; 18] = self.receive()?;
        ensure!(&greeting[..16] == b"NBDMAGICIHAVEOPT", "not a newstyle NBD server");
        // Fixed newstyle, no zeroes after the handshake.
        self.stream.write_all(&3u32.to_be_bytes())?;
        let mut go = Vec::new();
        go.extend(OPTION_MAGIC.to_be_bytes());
        go.extend(OPTION_GO.to_be_bytes());
        go.extend(u32::try_from(export.len() + 6)?.to_be_bytes());
        go.extend(u32::try_from(export.len())?.to_be_bytes());
        go.extend(export.as_bytes());
        go.extend(0u16.to_be_bytes());
        self.stream.write_all(&go)?;
        while self.option_reply()? != REPLY_ACK {}
        ensure!(self.size_bytes > 0, "the server did not tell the export's size");
        Ok(())
    }

    fn option_reply(&mut self) -> Result<u32> {
        let magic = u64::from_be_bytes(self.receive()?);
        ensure!(magic == OPTION_REPLY_MAGIC, "magic {magic:x} is no option reply");
        let (_option, kind, length) = (self.number()?, self.number()?, self.number()?);
        let mut data = vec![0; usize::try_from(length)?];
        self.stream.read_exact(&mut data)?;
        if kind & 0x8000_0000 != 0 {
            bail!("the server refuses the export ({kind:x}): {}", String::from_utf8_lossy(&data));
        }
        if kind == REPLY_INFO && data.starts_with(&[0, 0]) {
            self.size_bytes = u64::from_be_bytes(data[2..10].try_into()?);
        }
        Ok(kind)
    }

    fn receive<const N: usize>(&mut self) -> Result<[u8; N]> {
        let mut bytes = [0; N];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn number(&mut self) -> Result<u32> {
        Ok(u32::from_be_bytes(self.receive()?))
    }

    /// Size of the export.
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    fn send(&mut self, command: Command, flags: u16, offset: u64, len: usize, data: &[u8]) -> Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(flags.to_be_bytes());
        request.extend((command as u16).to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(u32::try_from(len)?.to_be_bytes());
        request.extend(data);
        Ok(self.stream.write_all(&request)?)
    }

    /// The error number that the server answers; 0: none.
    fn reply(&mut self) -> Result<u32> {
        let magic = self.number()?;
        ensure!(magic == SIMPLE_REPLY_MAGIC, "magic {magic:x} is no reply");
        let error = self.number()?;
        let cookie = u64::from_be_bytes(self.receive()?);
        ensure!(cookie == self.cookie, "the reply is to request {cookie}, not to {}", self.cookie);
        Ok(error)
    }

    fn answer(&mut self, command: Command, flags: u16, offset: u64, len: usize, data: &[u8]) -> Result<(u32, Vec<u8>)> {
        self.send(command, flags, offset, len, data)?;
        let error = self.reply()?;
        let mut bytes = vec![0; if command == Command::Read && error == 0 { len } else { 0 }];
        self.stream.read_exact(&mut bytes)?;
        Ok((error, bytes))
    }

    /// Any request, told apart by how it ended. After [`Failure::Gone`] the connection is of no use.
    pub fn perform(
        &mut self,
        command: Command,
        offset: u64,
        len: usize,
        data: &[u8],
        fua: bool,
    ) -> Result<Vec<u8>, Failure> {
        match self.answer(command, if fua { FUA } else { 0 }, offset, len, data) {
            Ok((0, bytes)) => Ok(bytes),
            Ok((error, _)) => Err(Failure::Answered(error)),
            Err(error) => Err(Failure::Gone(error.to_string())),
        }
    }

    fn ask(&mut self, command: Command, offset: u64, len: usize, data: &[u8]) -> Result<Vec<u8>> {
        let (error, bytes) = self.answer(command, 0, offset, len, data)?;
        ensure!(error == 0, "{command:?} failed with error {error}");
        Ok(bytes)
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.ask(Command::Read, offset, len, &[])
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.ask(Command::Write, offset, data.len(), data).map(drop)
    }

    /// Makes durable what was written.
    pub fn flush(&mut self) -> Result<()> {
        self.ask(Command::Flush, 0, 0, &[]).map(drop)
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.send(Command::Disconnect, 0, 0, 0, &[]);
    }
}
