//! A proxy of one address that makes trouble on the connections that it passes on.

use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// What goes wrong, in the direction away from a node, after so many bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// Both ends get a reset.
    Reset {
        from: usize,
        after: u64,
    },
    /// Nothing more is passed on, and nobody is told.
    Swallow {
        from: usize,
        after: u64,
    },
}

/// Runs until dropped.
pub struct Proxy {
    address: SocketAddr,
    over: Arc<AtomicBool>,
}

impl Proxy {
    pub fn start(target: SocketAddr, trouble: Trouble) -> Proxy {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("bound");
        let over = Arc::<AtomicBool>::default();
        let ending = Arc::clone(&over);
        std::thread::spawn(move || {
            while let Ok((near, _)) = listener.accept() {
                if ending.load(Ordering::Relaxed) {
                    return;
                }
                let Ok(far) = TcpStream::connect(target) else { continue };
                pass_on([near, far], trouble);
            }
        });
        Proxy { address, over }
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.over.store(true, Ordering::Relaxed);
        // Wakes it up.
        drop(TcpStream::connect(self.address));
    }
}

fn pass_on(streams: [TcpStream; 2], trouble: Trouble) {
    let cut = Arc::<AtomicBool>::default();
    for from in 0..2 {
        streams[from].set_nodelay(true).expect("a socket");
        let [source, sink] = [from, 1 - from].map(|end| streams[end].try_clone().expect("a descriptor"));
        let trouble = match trouble {
            Trouble::Reset { from: there, .. } | Trouble::Swallow { from: there, .. } if there == from => trouble,
            _ => Trouble::None,
        };
        let cut = Arc::clone(&cut);
        std::thread::spawn(move || one_way(source, sink, trouble, &cut));
    }
}

/// Ends when the source does.
fn one_way(mut source: TcpStream, mut sink: TcpStream, trouble: Trouble, cut: &AtomicBool) {
    let mut bytes = [0; 16 << 10];
    let mut passed = 0;
    loop {
        let count = match source.read(&mut bytes) {
            Ok(0) if cut.load(Ordering::Relaxed) => return,
            Ok(0) => break drop(sink.shutdown(Shutdown::Write)),
            Ok(count) => count as u64,
            // A reset is passed on as one.
            Err(_) => break reset([source, sink], cut),
        };
        let room = match trouble {
            Trouble::None => count,
            Trouble::Reset { after, .. } | Trouble::Swallow { after, .. } => count.min(after.saturating_sub(passed)),
        };
        passed += room;
        if sink.write_all(&bytes[..usize::try_from(room).expect("a part")]).is_err() {
            break reset([source, sink], cut);
        }
        if room < count && matches!(trouble, Trouble::Reset { .. }) {
            // What was passed on gets there first.
            std::thread::sleep(Duration::from_millis(2));
            break reset([source, sink], cut);
        }
    }
}

/// Ends both so that their peers get resets, once the other direction's thread has let go of them, too.
fn reset(streams: [TcpStream; 2], cut: &AtomicBool) {
    cut.store(true, Ordering::Relaxed);
    for stream in streams {
        // It fails if the peer was faster.
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        // Wakes that thread up.
        let _ = stream.shutdown(Shutdown::Read);
    }
}
