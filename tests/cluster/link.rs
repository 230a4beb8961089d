//! What passes between a broker and its workers is cut, damaged, encrypted.

use henge_engine::distributed::{GetWorkerInfoRequest, ServedBy, WorkerChannels};
use henge_server::grpc::{PeerSecurity, PeerTls};
use libtest_mimic::{Completion, Failed, Trial};
use tempfile::TempDir;

use super::failure::{ask, generated};
use crate::harness::certificates::Certificates;
use crate::harness::cluster::Cluster;
use crate::harness::proxy::{Fault, Proxy};
use crate::harness::{block_on, contains, ensure, missing};

pub fn trials() -> Vec<Trial> {
    vec![
        Trial::test("cluster::f04_f06_an_answer_is_cut_in_its_middle", cut),
        Trial::ignorable_test("cluster::f05_an_answer_is_damaged_on_its_way", damaged),
        Trial::ignorable_test("cluster::strangers_without_a_certificate_are_not_answered", strangers),
    ]
}

const QUESTIONS: [&str; 2] = [
    "SELECT channel, COUNT(*), SUM(added) FROM wikiticker GROUP BY channel ORDER BY channel",
    "SELECT __time, page, user, added FROM wikiticker WHERE added > 10 ORDER BY __time, page, user, added",
];

/// Two workers that both have everything, the first behind a proxy with a fault. Returns how many of the faults happened;
/// every answer is right all the same.
async fn with_faults(security: &PeerSecurity, faults: impl Iterator<Item = Fault>) -> Result<usize, Failed> {
    let cluster = Cluster::with(generated(), 2, security.clone(), |_| vec![0, 1]);
    let uids = cluster.uids("wikiticker").to_vec();
    let mut expected = Vec::new();
    for sql in QUESTIONS {
        expected.push(ask(&cluster.session(), sql).await?);
    }
    cluster.placement.leave(&cluster.workers[0].url());
    let mut happened = 0;
    for fault in faults {
        let proxy = Proxy::faulty(cluster.workers[0].address, fault).await;
        let url = proxy.url_of(cluster.workers[0].scheme);
        cluster.placement.announce(url.clone(), ServedBy::Historical, uids.clone());
        for (sql, expected) in QUESTIONS.iter().zip(&expected) {
            let rows = ask(&cluster.session(), sql).await.map_err(|error| format!("{fault:?}: {sql}: {error:?}"))?;
            ensure(rows == *expected, || format!("{fault:?}: {sql}: {} rows", rows.len()))?;
        }
        happened += usize::from(proxy.was_faulty());
        cluster.placement.leave(&url);
    }
    Ok(happened)
}

fn cut() -> Result<(), Failed> {
    block_on(async {
        // From within the first frame of the connection to far into the rows.
        let faults = (0..21).map(|number| Fault::Cut { after: 20 + number * number * 60 });
        let happened = with_faults(&PeerSecurity::default(), faults).await?;
        ensure(happened >= 12, || format!("only {happened} answers were so long"))
    })
}

/// Of a cluster that encrypts: there no bit that was changed goes unseen.
fn damaged() -> Result<Completion, Failed> {
    let dir = TempDir::new()?;
    let Some(certificates) = Certificates::issue(dir.path(), "cluster")? else { return missing("openssl") };
    let security = PeerSecurity { secret: Some("one of us".to_owned()), tls: Some(pem(&certificates)?) };
    block_on(async {
        // After the handshake, which ends with what is refused there in any case.
        let faults = (0..8).map(|number| Fault::Flip { after: 3_000 + number * number * 400 });
        let happened = with_faults(&security, faults).await?;
        ensure(happened >= 4, || format!("only {happened} answers were so long"))?;
        Ok(Completion::Completed)
    })
}

fn pem(certificates: &Certificates) -> Result<PeerTls, Failed> {
    let Certificates { authority, cert, key } = certificates;
    Ok(PeerTls { authority: std::fs::read(authority)?, certificate: std::fs::read(cert)?, key: std::fs::read(key)? })
}

fn strangers() -> Result<Completion, Failed> {
    let dir = TempDir::new()?;
    let Some(ours) = Certificates::issue(dir.path(), "cluster")? else { return missing("openssl") };
    let Some(theirs) = Certificates::issue(dir.path(), "theirs")? else { return missing("openssl") };
    let (ours, theirs) = (pem(&ours)?, pem(&theirs)?);
    let known = |secret: &str, tls: &PeerTls| PeerSecurity { secret: Some(secret.to_owned()), tls: Some(tls.clone()) };
    block_on(async {
        let cluster = Cluster::with(generated(), 2, known("one of us", &ours), |_| vec![0, 1]);
        ask(&cluster.session(), QUESTIONS[0]).await.map_err(|error| format!("those who have it: {error:?}"))?;
        // Signed by another; signed by another, but trusting ours; none at all; the right one and a wrong secret.
        let mixed = PeerTls { authority: ours.authority.clone(), ..theirs.clone() };
        for (security, word) in [
            (known("one of us", &theirs), "transport"),
            (known("one of us", &mixed), "transport"),
            (PeerSecurity { secret: Some("one of us".to_owned()), tls: None }, "transport"),
            (known("a guess", &ours), "only processes of its cluster"),
        ] {
            let stranger = Cluster::with(Vec::new(), 0, security, |_| vec![]);
            let mut channel = stranger.broker.peers.channel(&cluster.workers[0].url()).await?;
            let error =
                channel.get_worker_info(GetWorkerInfoRequest {}).await.err().ok_or("a stranger was answered")?;
            contains(&format!("{error:?}").to_lowercase(), &[word])?;
        }
        Ok(Completion::Completed)
    })
}
