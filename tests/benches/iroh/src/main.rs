//! An archive from one node of iroh-blobs to another in this process, over the loopback interface and into a
//! store on disk, five times: `cargo run -- FILE`. CPU seconds are of both ends.

use std::{env, error::Error, fs, path, time::Instant};

use iroh::{Endpoint, endpoint::presets, protocol::Router};
use iroh_blobs::{BlobsProtocol, store::fs::FsStore};

/// CPU seconds of this process.
fn cpu() -> Result<f64, Box<dyn Error>> {
    let stat = fs::read_to_string("/proc/self/stat")?;
    let fields = stat.rsplit_once(')').map(|(_, rest)| rest.split_whitespace().skip(11).take(2));
    // In hundredths of a second, whatever the machine.
    Ok(fields.into_iter().flatten().map(|field| field.parse().unwrap_or(0.0)).sum::<f64>() / 100.0)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let file = path::absolute(env::args().nth(1).ok_or("which file?")?)?;
    let size = file.metadata()?.len();
    let from = tempfile::tempdir()?;
    let sender = FsStore::load(from.path()).await?;
    let tag = sender.blobs().add_path(file).await?;
    let router = Router::builder(Endpoint::bind(presets::Minimal).await?);
    let router = router.accept(iroh_blobs::ALPN, BlobsProtocol::new(&sender, None)).spawn();
    for _ in 0..5 {
        let to = tempfile::tempdir()?;
        let store = FsStore::load(to.path()).await?;
        let endpoint = Endpoint::bind(presets::Minimal).await?;
        let connection = endpoint.connect(router.endpoint().addr(), iroh_blobs::ALPN).await?;
        let (time, used) = (Instant::now(), cpu()?);
        store.remote().fetch(connection, tag.hash).await?;
        let (time, used) = (time.elapsed().as_secs_f64(), cpu()? - used);
        println!("iroh-blobs: {:.0} MB/s, {used:.2} CPU seconds", size as f64 / time / 1e6);
        store.shutdown().await?;
        endpoint.close().await;
    }
    router.shutdown().await?;
    Ok(())
}
