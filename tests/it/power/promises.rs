use super::contents::SECTOR;
use super::{Disk, Mount, Unsynced};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::os::unix::fs::{FileExt as _, MetadataExt as _};

/// What a file holds, if it is there.
fn bytes(disk: &Disk, name: &str) -> Option<Vec<u8>> {
    let file = disk.find(name).ok()?;
    Some(disk.read(file, 0, usize::MAX).expect("the power is on"))
}

/// The length of a file that is there before anything happens: a few sectors.
const LENGTH: usize = 24 * SECTOR;

/// A disk with one durable file, each byte of which is this one.
fn disk_with(name: &str, byte: u8) -> (Disk, usize) {
    let disk = Disk::default();
    let file = disk.create(name).expect("made");
    disk.write(file, 0, &[byte; LENGTH]).expect("written");
    disk.sync(file).expect("synced");
    disk.sync_names().expect("synced");
    (disk, file)
}

#[test]
fn what_was_synced_survives_whatever_happens() {
    let (disk, _) = disk_with("a", 1);
    for fate in [Unsynced::Lost, Unsynced::Kept, Unsynced::Torn(1)] {
        assert_eq!(bytes(&disk.power_off(fate), "a"), Some(vec![1; LENGTH]), "{fate:?}");
    }
}

#[test]
fn what_was_not_synced_is_seen_until_the_power_fails() {
    let (disk, file) = disk_with("a", 1);
    disk.write(file, 10, &[2; SECTOR]).expect("written");
    disk.resize(file, 2 * SECTOR).expect("cut");
    let live = [vec![1; 10], vec![2; SECTOR], vec![1; SECTOR - 10]].concat();
    assert_eq!(bytes(&disk, "a"), Some(live.clone()));
    assert_eq!(bytes(&disk.power_off(Unsynced::Lost), "a"), Some(vec![1; LENGTH]));
    assert_eq!(bytes(&disk.power_off(Unsynced::Kept), "a"), Some(live));
}

#[test]
fn an_unsynced_write_tears_between_sectors_and_only_there() {
    let (disk, file) = disk_with("a", 1);
    // Not on the grid of sectors: its first and its last one are hit in part.
    disk.write(file, 100, &[2; LENGTH - 2 * SECTOR]).expect("written");
    let mut survivors = BTreeSet::new();
    for seed in 0..50 {
        let found = bytes(&disk.power_off(Unsynced::Torn(seed)), "a").expect("there");
        assert_eq!(found[..100], [1; 100]);
        let sectors = std::iter::once(&found[100..SECTOR]).chain(found[SECTOR..LENGTH - 2 * SECTOR].chunks(SECTOR));
        let mut survived = 0;
        for sector in sectors {
            assert!(sector.iter().all(|byte| *byte == sector[0]), "seed {seed}: a sector is torn within");
            survived += usize::from(sector[0] == 2);
        }
        survivors.insert(survived);
    }
    let (fewest, most) = (survivors.first().expect("one"), survivors.last().expect("one"));
    assert!(*fewest < 4 && *most > 18 && survivors.contains(&11), "hardly any, half, nearly all: {survivors:?}");
}

#[test]
fn the_same_seed_leaves_the_same() {
    let (disk, file) = disk_with("a", 1);
    disk.write(file, 0, &[2; LENGTH]).expect("written");
    let found = |seed| bytes(&disk.power_off(Unsynced::Torn(seed)), "a");
    assert_eq!(found(7), found(7));
}

#[test]
fn a_name_is_durable_once_the_directory_is_synced_and_not_by_a_sync_of_its_file() {
    let disk = Disk::default();
    let file = disk.create("a").expect("made");
    disk.write(file, 0, b"x").expect("written");
    disk.sync(file).expect("synced");
    assert_eq!(bytes(&disk.power_off(Unsynced::Lost), "a"), None);

    let (disk, file) = disk_with("b", 1);
    disk.write(file, 0, &[2; SECTOR]).expect("written");
    disk.sync_names().expect("synced");
    assert_eq!(bytes(&disk.power_off(Unsynced::Lost), "b"), Some(vec![1; LENGTH]), "a sync of names is not of bytes");
}

#[test]
fn a_removal_or_a_rename_that_was_not_synced_may_be_undone_but_not_halved() {
    let (disk, file) = disk_with("old", 1);
    let other = disk.create("removed").expect("made");
    disk.write(other, 0, b"x").expect("written");
    disk.sync(other).expect("synced");
    disk.sync_names().expect("synced");
    disk.rename("old", "new").expect("renamed");
    disk.remove("removed").expect("removed");
    assert_eq!(disk.look(file), Ok((LENGTH, true)));
    let mut outcomes = BTreeSet::new();
    for seed in 0..100 {
        let disk = disk.power_off(Unsynced::Torn(seed));
        let (is_old, is_new) = (disk.find("old").is_ok(), disk.find("new").is_ok());
        assert!(is_old != is_new, "one of the two names");
        outcomes.insert((is_new, disk.find("removed").is_err()));
    }
    assert_eq!(outcomes.len(), 4, "by itself each: {outcomes:?}");
}

#[test]
fn of_a_journal_of_names_a_prefix_survives() {
    let disk = Disk::default();
    for name in 0..20 {
        disk.create(&format!("{name:02}")).expect("made");
    }
    let is_prefix = |seed| {
        let names = disk.power_off(Unsynced::Torn(seed)).names().expect("the power is on");
        let last = names.last().map_or(0, |(name, _)| name.parse::<usize>().expect("a number") + 1);
        last == names.len()
    };
    let prefixes = (0..100).filter(|seed| is_prefix(*seed)).count();
    assert!((25..=85).contains(&prefixes), "about half: {prefixes} of 100");
}

#[test]
fn a_failed_sync_calls_clean_what_no_later_one_makes_durable() {
    let (disk, file) = disk_with("a", 1);
    disk.fail_sync_after(1);
    disk.sync(file).expect("the one before");
    disk.write(file, 0, &[2; SECTOR]).expect("written");
    assert_eq!(disk.sync(file), Err(Errno::IO));
    disk.sync(file).expect("the second one reports success");
    assert_eq!(bytes(&disk, "a").expect("there")[..SECTOR], [2; SECTOR], "reads see it");
    assert_eq!(bytes(&disk.power_off(Unsynced::Kept), "a"), Some(vec![1; LENGTH]), "the disk never had it");

    let (disk, _) = disk_with("c", 1);
    disk.fail_sync_after(0);
    disk.remove("c").expect("removed");
    assert_eq!(disk.sync_names(), Err(Errno::IO));
    disk.sync_names().expect("the second one reports success");
    assert!(disk.power_off(Unsynced::Kept).find("c").is_ok(), "so do names");
}

#[test]
fn a_full_disk_takes_what_fits_and_then_nothing_until_there_is_room() {
    let (disk, file) = disk_with("a", 1);
    disk.set_capacity(disk.held() + 700);
    assert_eq!(disk.write(file, LENGTH - 100, &[2; 1000]), Ok(800), "100 of them over what is there");
    assert_eq!(disk.write(file, LENGTH + 700, &[2; 10]), Err(Errno::NOSPC));
    assert_eq!(disk.allocate(file, LENGTH + 6 * SECTOR), Err(Errno::NOSPC));
    assert_eq!(disk.create("b"), Err(Errno::NOSPC));
    assert_eq!(disk.write(file, 0, &[3; SECTOR]), Ok(SECTOR), "what is there can be written over");
    disk.resize(file, 0).expect("cut");
    disk.create("b").expect("there is room again");
}

#[test]
fn the_power_goes_in_the_middle_of_the_change_that_was_asked_for_and_stays_off() {
    let (disk, file) = disk_with("a", 1);
    disk.cut_power_after(1);
    disk.write(file, 0, &[2; SECTOR]).expect("the one before");
    assert_eq!(disk.sync(file), Err(Errno::IO), "cut short");
    assert_eq!(disk.write(file, 0, &[3; SECTOR]), Err(Errno::IO));
    assert_eq!(disk.names().err(), Some(Errno::IO));
    assert_eq!(bytes(&disk.power_off(Unsynced::Lost), "a"), Some(vec![1; LENGTH]), "that sync never was");
    assert_eq!(bytes(&disk.power_off(Unsynced::Kept), "a").expect("there")[..SECTOR], [2; SECTOR]);

    let (disk, file) = disk_with("a", 1);
    disk.cut_power_after(0);
    assert_eq!(disk.write(file, 0, &[2; SECTOR]), Err(Errno::IO));
    assert_eq!(bytes(&disk.power_off(Unsynced::Kept), "a").expect("there")[..SECTOR], [2; SECTOR], "it may have begun");
}

#[test]
fn a_mounted_disk_reads_as_it_was_written() {
    let disk = Disk::default();
    let Some(mount) = Mount::of(&disk) else { return };
    let path = mount.path().join("a");
    let content: Vec<u8> = (0..3_000_000_u32).map(|index| (index / 1000) as u8).collect();
    fs::write(&path, &content).expect("written");
    assert_eq!(bytes(&disk, "a").as_ref(), Some(&content), "nothing stays behind in a cache");
    assert!(fs::read(&path).expect("read") == content);
    let file = File::options().read(true).write(true).open(&path).expect("opened");
    assert_eq!(file.metadata().expect("its attributes").len(), 3_000_000);
    file.write_at(b"over", 1_999_998).expect("written");
    file.set_len(2_000_000).expect("cut");
    assert_eq!(bytes(&disk, "a").expect("there")[1_999_990..], *b"\xcf\xcf\xcf\xcf\xcf\xcf\xcf\xcfov");
    fallocate(&file, FallocateFlags::empty(), 0, 2_000_010).expect("sized ahead");
    assert_eq!(fs::read(&path).expect("read")[1_999_998..], *b"ov\0\0\0\0\0\0\0\0\0\0");
    fs::rename(&path, mount.path().join("b")).expect("renamed");
    assert_eq!(fs::read(&path).expect_err("gone").kind(), ErrorKind::NotFound);
    for number in 0..300 {
        fs::write(mount.path().join(number.to_string()), b"").expect("made");
    }
    let names: BTreeSet<_> =
        fs::read_dir(mount.path()).expect("a listing").map(|entry| entry.expect("one").file_name()).collect();
    assert_eq!(names.len(), 301);
    fs::remove_file(mount.path().join("b")).expect("removed");
    assert_eq!(file.metadata().expect("still open").nlink(), 0);
    let mut start = [0; 4];
    file.read_exact_at(&mut start, 1_000).expect("still read");
    assert_eq!(start, [1; 4]);
}

#[test]
fn syncs_faults_and_power_reach_a_mounted_disk() {
    let disk = Disk::default();
    let Some(mount) = Mount::of(&disk) else { return };
    let [named, unnamed] = ["named", "unnamed"].map(|name| mount.path().join(name));
    let file = File::create(&named).expect("made");
    File::open(mount.path()).expect("the directory").sync_all().expect("synced");
    file.write_at(b"synced", 0).expect("written");
    file.sync_data().expect("synced");
    file.write_at(b"SYNCED", 0).expect("written");
    let other = File::create(&unnamed).expect("made");
    other.sync_all().expect("synced");
    let found = disk.clone();

    disk.set_capacity(10);
    assert_eq!(file.write_at(&[1; 20], 6).expect("in part"), 4);
    assert_eq!(file.write_at(&[1; 20], 10).expect_err("full").kind(), ErrorKind::StorageFull);
    let refused = fallocate(&file, FallocateFlags::empty(), 0, 20);
    assert_eq!(refused, Err(Errno::NOSPC));
    assert_eq!(File::create(mount.path().join("third")).expect_err("full").kind(), ErrorKind::StorageFull);

    disk.fail_sync_after(0);
    assert_eq!(file.sync_data().expect_err("it fails").raw_os_error(), Some(Errno::IO.raw_os_error()));
    file.sync_data().expect("the second one reports success");
    disk.cut_power();
    assert_eq!(file.write_at(b"x", 0).expect_err("off").raw_os_error(), Some(Errno::IO.raw_os_error()));
    drop((file, other, mount));

    let found = found.power_off(Unsynced::Lost);
    let mount = Mount::of(&found).expect("mounted once");
    assert_eq!(fs::read(mount.path().join("named")).expect("durable"), b"synced");
    assert!(!mount.path().join("unnamed").exists());
}
