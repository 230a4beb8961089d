use std::collections::{BTreeMap, HashSet};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::path::{Component, Path};
use std::sync::Arc;

use parking_lot::Mutex;
use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};

use super::disk::{Disk, DiskEntry, DiskFile};

/// What a disk writes as a whole or not at all.
const SECTOR: usize = 512;

/// A disk in memory that keeps apart what was synced and what was not, so that a power loss can be played.
///
/// [`MemoryDisk::fail_after`] lets only so many writing operations happen; [`MemoryDisk::after_power_loss`] gives the
/// disk as the next start finds it: of what was not synced, any part may be missing, torn or out of order.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    nodes: Vec<Node>,
    /// Writing operations so far.
    operations: u64,
    limit: u64,
    next_name_change: u64,
}

#[derive(Clone, Debug)]
enum Node {
    File(FileNode),
    Dir(DirNode),
}

#[derive(Clone, Debug, Default)]
struct FileNode {
    now: Vec<u8>,
    synced: Vec<u8>,
    /// Writes since the last sync: where, and what.
    unsynced: Vec<(usize, Vec<u8>)>,
}

#[derive(Clone, Debug, Default)]
struct DirNode {
    now: BTreeMap<OsString, usize>,
    synced: BTreeMap<OsString, usize>,
    unsynced: Vec<NameChange>,
}

/// A change of names that is not synced yet. A removal that is half of a move into another directory is never kept
/// without the other half, as no journaling file system does that.
#[derive(Clone, Debug)]
struct NameChange {
    number: u64,
    after: Option<u64>,
    removed: Option<OsString>,
    added: Option<(OsString, usize)>,
}

const ROOT: usize = 0;

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::with_nodes(vec![Node::Dir(DirNode::default())])
    }
}

impl MemoryDisk {
    /// An empty disk; its root directory is there.
    pub fn new() -> Self {
        Self::default()
    }

    fn with_nodes(nodes: Vec<Node>) -> Self {
        let state = State { nodes, operations: 0, limit: u64::MAX, next_name_change: 0 };
        Self { state: Arc::new(Mutex::new(state)) }
    }

    /// How many writing operations were done: files begun, writes, syncs, renames, removals.
    pub fn operations(&self) -> u64 {
        self.state.lock().operations
    }

    /// Lets `operations` more writing operations happen; those after fail, as if the power had gone.
    pub fn fail_after(&self, operations: u64) {
        let mut state = self.state.lock();
        state.limit = state.operations.saturating_add(operations);
    }

    /// The disk as it may be found after a power loss now. The seed decides what of the unsynced was kept.
    pub fn after_power_loss(&self, seed: u64) -> Self {
        let state = self.state.lock();
        let mut dice = StdRng::seed_from_u64(seed);
        let lost = lost_name_changes(&state.nodes, &mut dice);
        let nodes = state.nodes.iter().map(|node| match node {
            Node::File(file) => Node::File(file.after_power_loss(&mut dice)),
            Node::Dir(dir) => Node::Dir(dir.after_power_loss(&lost)),
        });
        Self::with_nodes(nodes.collect())
    }

    fn write<T>(&self, work: impl FnOnce(&mut State) -> io::Result<T>) -> io::Result<T> {
        let mut state = self.state.lock();
        if state.operations >= state.limit {
            return Err(io::Error::other("the power is off"));
        }
        state.operations += 1;
        work(&mut state)
    }
}

/// Which unsynced changes of names are lost: all, none, or any.
fn lost_name_changes(nodes: &[Node], dice: &mut StdRng) -> HashSet<u64> {
    let keep = [0.0, 0.5, 1.0][dice.random_range(0..3)];
    let dirs = nodes.iter().filter_map(|node| match node {
        Node::Dir(dir) => Some(dir),
        Node::File(_) => None,
    });
    let mut changes = dirs.flat_map(|dir| &dir.unsynced).collect::<Vec<_>>();
    changes.sort_by_key(|change| change.number);
    let mut lost = HashSet::new();
    for change in changes {
        let torn_move = change.after.is_some_and(|other| lost.contains(&other));
        if torn_move || !dice.random_bool(keep) {
            lost.insert(change.number);
        }
    }
    lost
}

impl FileNode {
    fn after_power_loss(&self, dice: &mut StdRng) -> Self {
        let mut bytes = self.synced.clone();
        let keep = [0.0, 0.5, 0.9, 1.0][dice.random_range(0..4)];
        for (offset, data) in &self.unsynced {
            for (i, sector) in data.chunks(SECTOR).enumerate() {
                if dice.random_bool(keep) {
                    write_at(&mut bytes, offset + i * SECTOR, sector);
                }
            }
        }
        Self { now: bytes.clone(), synced: bytes, unsynced: Vec::new() }
    }
}

impl DirNode {
    fn after_power_loss(&self, lost: &HashSet<u64>) -> Self {
        let mut names = self.synced.clone();
        for change in self.unsynced.iter().filter(|change| !lost.contains(&change.number)) {
            change.apply(&mut names);
        }
        Self { now: names.clone(), synced: names, unsynced: Vec::new() }
    }
}

impl NameChange {
    fn apply(&self, names: &mut BTreeMap<OsString, usize>) {
        if let Some(name) = &self.removed {
            names.remove(name);
        }
        if let Some((name, node)) = &self.added {
            names.insert(name.clone(), *node);
        }
    }
}

fn write_at(bytes: &mut Vec<u8>, offset: usize, data: &[u8]) {
    let end = offset + data.len();
    if bytes.len() < end {
        bytes.resize(end, 0);
    }
    bytes[offset..end].copy_from_slice(data);
}

fn not_found(path: &Path) -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, format!("`{}` is not there", path.display()))
}

impl State {
    fn find(&self, path: &Path) -> io::Result<usize> {
        let mut node = ROOT;
        for component in path.components() {
            let Component::Normal(name) = component else { continue };
            node = *self.dir(node, path)?.now.get(name).ok_or_else(|| not_found(path))?;
        }
        Ok(node)
    }

    /// The directory that holds `path`, and the name in it.
    fn place(&self, path: &Path) -> io::Result<(usize, OsString)> {
        let name = path.file_name().ok_or_else(|| not_found(path))?;
        let parent = self.find(path.parent().unwrap_or(Path::new("")))?;
        Ok((parent, name.to_owned()))
    }

    fn dir(&self, node: usize, path: &Path) -> io::Result<&DirNode> {
        match &self.nodes[node] {
            Node::Dir(dir) => Ok(dir),
            Node::File(_) => Err(io::Error::new(io::ErrorKind::NotADirectory, path.display().to_string())),
        }
    }

    fn file(&self, path: &Path) -> io::Result<&FileNode> {
        match &self.nodes[self.find(path)?] {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::Error::new(io::ErrorKind::IsADirectory, path.display().to_string())),
        }
    }

    fn file_mut(&mut self, node: usize) -> io::Result<&mut FileNode> {
        match &mut self.nodes[node] {
            Node::File(file) => Ok(file),
            Node::Dir(_) => Err(io::ErrorKind::IsADirectory.into()),
        }
    }

    fn change_names(
        &mut self,
        dir: usize,
        removed: Option<OsString>,
        added: Option<(OsString, usize)>,
        after: Option<u64>,
    ) -> io::Result<u64> {
        let number = self.next_name_change;
        self.next_name_change += 1;
        let Node::Dir(dir) = &mut self.nodes[dir] else { return Err(io::ErrorKind::NotADirectory.into()) };
        let change = NameChange { number, after, removed, added };
        change.apply(&mut dir.now);
        dir.unsynced.push(change);
        Ok(number)
    }

    fn add(&mut self, path: &Path, node: Node) -> io::Result<usize> {
        let (parent, name) = self.place(path)?;
        if self.dir(parent, path)?.now.contains_key(&name) {
            return Err(io::Error::new(io::ErrorKind::AlreadyExists, path.display().to_string()));
        }
        self.nodes.push(node);
        let node = self.nodes.len() - 1;
        self.change_names(parent, None, Some((name, node)), None)?;
        Ok(node)
    }
}

#[derive(Debug)]
struct MemoryFile {
    disk: MemoryDisk,
    node: usize,
}

impl Write for MemoryFile {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        self.disk.write(|state| {
            let file = state.file_mut(self.node)?;
            let offset = file.now.len();
            write_at(&mut file.now, offset, data);
            file.unsynced.push((offset, data.to_vec()));
            Ok(data.len())
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for MemoryFile {
    fn sync(&mut self) -> io::Result<()> {
        self.disk.write(|state| {
            let file = state.file_mut(self.node)?;
            file.synced = file.now.clone();
            file.unsynced.clear();
            Ok(())
        })
    }
}

impl Disk for MemoryDisk {
    fn create(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let node = self.write(|state| state.add(path, Node::File(FileNode::default())))?;
        Ok(Box::new(MemoryFile { disk: self.clone(), node }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn DiskFile>> {
        let state = self.state.lock();
        state.file(path)?;
        Ok(Box::new(MemoryFile { disk: self.clone(), node: state.find(path)? }))
    }

    fn sync_file(&self, path: &Path) -> io::Result<()> {
        self.append(path)?.sync()
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        self.write(|state| {
            let node = state.find(from)?;
            let (from_dir, from_name) = state.place(from)?;
            let (to_dir, to_name) = state.place(to)?;
            if from_dir == to_dir {
                state.change_names(to_dir, Some(from_name), Some((to_name, node)), None)?;
            } else {
                let added = state.change_names(to_dir, None, Some((to_name, node)), None)?;
                state.change_names(from_dir, Some(from_name), None, Some(added))?;
            }
            Ok(())
        })
    }

    fn create_dir(&self, path: &Path) -> io::Result<()> {
        self.write(|state| state.add(path, Node::Dir(DirNode::default())).map(drop))
    }

    fn sync_dir(&self, path: &Path) -> io::Result<()> {
        self.write(|state| {
            let node = state.find(path)?;
            let Node::Dir(dir) = &mut state.nodes[node] else { return Err(io::ErrorKind::NotADirectory.into()) };
            dir.synced = dir.now.clone();
            dir.unsynced.clear();
            Ok(())
        })
    }

    fn remove_file(&self, path: &Path) -> io::Result<()> {
        self.write(|state| {
            state.file(path)?;
            let (parent, name) = state.place(path)?;
            state.change_names(parent, Some(name), None, None).map(drop)
        })
    }

    fn remove_dir(&self, path: &Path) -> io::Result<()> {
        self.write(|state| {
            let node = state.find(path)?;
            if !state.dir(node, path)?.now.is_empty() {
                return Err(io::ErrorKind::DirectoryNotEmpty.into());
            }
            let (parent, name) = state.place(path)?;
            state.change_names(parent, Some(name), None, None).map(drop)
        })
    }

    fn exists(&self, path: &Path) -> io::Result<bool> {
        match self.state.lock().find(path) {
            Ok(_) => Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    fn open(&self, path: &Path) -> io::Result<Box<dyn Read + Send>> {
        let bytes = self.state.lock().file(path)?.now.clone();
        Ok(Box::new(io::Cursor::new(bytes)))
    }

    fn read_range(&self, path: &Path, offset: u64, len: usize) -> io::Result<Vec<u8>> {
        let state = self.state.lock();
        let bytes = &state.file(path)?.now;
        let start = usize::try_from(offset).map_err(io::Error::other)?;
        let range = bytes.get(start..start + len).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof))?;
        Ok(range.to_vec())
    }

    fn list(&self, path: &Path) -> io::Result<Vec<DiskEntry>> {
        let state = self.state.lock();
        let dir = state.dir(state.find(path)?, path)?;
        let entries = dir
            .now
            .iter()
            .map(|(name, node)| DiskEntry { name: name.clone(), is_dir: matches!(state.nodes[*node], Node::Dir(_)) });
        Ok(entries.collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(disk: &MemoryDisk, path: &str, bytes: &[u8]) -> io::Result<Box<dyn DiskFile>> {
        let mut file = disk.create(Path::new(path))?;
        file.write_all(bytes)?;
        Ok(file)
    }

    fn read(disk: &MemoryDisk, path: &str) -> Option<Vec<u8>> {
        let mut bytes = Vec::new();
        disk.open(Path::new(path)).ok()?.read_to_end(&mut bytes).ok()?;
        Some(bytes)
    }

    #[test]
    fn what_was_synced_with_its_directory_survives_every_power_loss() -> io::Result<()> {
        let disk = MemoryDisk::new();
        write(&disk, "a", &[7; 2000])?.sync()?;
        disk.sync_dir(Path::new(""))?;
        for seed in 0..100 {
            assert_eq!(read(&disk.after_power_loss(seed), "a"), Some(vec![7; 2000]), "seed {seed}");
        }
        Ok(())
    }

    /// The double is worth nothing unless each kind of loss really comes up.
    #[test]
    fn names_and_bytes_that_were_not_synced_are_lost_torn_and_kept() -> io::Result<()> {
        let disk = MemoryDisk::new();
        write(&disk, "a", &[7; 2000])?;
        let found = (0..200).map(|seed| read(&disk.after_power_loss(seed), "a")).collect::<HashSet<_>>();
        assert!(found.contains(&None));
        assert!(found.contains(&Some(vec![])));
        assert!(found.contains(&Some(vec![7; 2000])));
        assert!(found.iter().flatten().any(|bytes| bytes.len() == 2000 && bytes.contains(&0)));
        Ok(())
    }

    #[test]
    fn a_move_between_directories_never_loses_a_synced_file() -> io::Result<()> {
        let disk = MemoryDisk::new();
        disk.create_dir_durably(Path::new("d"))?;
        write(&disk, "a", b"x")?.sync()?;
        disk.sync_dir(Path::new(""))?;
        disk.rename(Path::new("a"), Path::new("d/a"))?;
        let (mut moved, mut not_moved) = (0, 0);
        for seed in 0..200 {
            let disk = disk.after_power_loss(seed);
            moved += usize::from(read(&disk, "d/a").is_some());
            not_moved += usize::from(read(&disk, "d/a").is_none());
            assert!(read(&disk, "a").is_some() || read(&disk, "d/a").is_some(), "seed {seed}");
        }
        assert!(moved > 0 && not_moved > 0);
        Ok(())
    }

    #[test]
    fn operations_past_the_limit_fail_and_change_nothing() -> io::Result<()> {
        let disk = MemoryDisk::new();
        disk.fail_after(1);
        let mut file = disk.create(Path::new("a"))?;
        assert!(file.write_all(b"x").is_err());
        assert_eq!(read(&disk, "a"), Some(vec![]));
        Ok(())
    }
}
