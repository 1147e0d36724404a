//! A small NBD client: one connection, one request at a time, so that every answer belongs to a known request.

use anyhow::{Context, Result, bail, ensure};
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
enum Command {
    Read = 0,
    Write = 1,
    Disconnect = 2,
    Flush = 3,
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

    fn send(&mut self, command: Command, offset: u64, len: usize, data: &[u8]) -> Result<()> {
        self.cookie += 1;
        let mut request = Vec::with_capacity(28 + data.len());
        request.extend(REQUEST_MAGIC.to_be_bytes());
        request.extend(0u16.to_be_bytes());
        request.extend((command as u16).to_be_bytes());
        request.extend(self.cookie.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(u32::try_from(len)?.to_be_bytes());
        request.extend(data);
        Ok(self.stream.write_all(&request)?)
    }

    fn reply(&mut self, what: Command) -> Result<()> {
        let magic = self.number()?;
        ensure!(magic == SIMPLE_REPLY_MAGIC, "magic {magic:x} is no reply");
        let error = self.number()?;
        let cookie = u64::from_be_bytes(self.receive()?);
        ensure!(cookie == self.cookie, "the reply is to request {cookie}, not to {}", self.cookie);
        ensure!(error == 0, "{what:?} failed with error {error}");
        Ok(())
    }

    /// Reads.
    pub fn read(&mut self, offset: u64, len: usize) -> Result<Vec<u8>> {
        self.send(Command::Read, offset, len, &[])?;
        self.reply(Command::Read)?;
        let mut data = vec![0; len];
        self.stream.read_exact(&mut data)?;
        Ok(data)
    }

    /// Writes.
    pub fn write(&mut self, offset: u64, data: &[u8]) -> Result<()> {
        self.send(Command::Write, offset, data.len(), data)?;
        self.reply(Command::Write)
    }

    /// Makes durable what was written.
    pub fn flush(&mut self) -> Result<()> {
        self.send(Command::Flush, 0, 0, &[])?;
        self.reply(Command::Flush)
    }
}

impl Drop for Nbd {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.send(Command::Disconnect, 0, 0, &[]);
    }
}
