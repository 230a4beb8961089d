//! Edits of Wikipedia, made up: any number of rows, over any days, for demonstration, tests and benchmarks.
//!
//! Invariants: row `n` is a function of the options and `n` alone, made with integer arithmetic only, so that the same
//! options give the same bytes on every machine and for ever; rows are in order of time; nothing in them was written
//! by anyone. Names, proportions and skew resemble a real day: a few channels, pages and users have most of the edits,
//! robots edit in bulk, evenings are busy, and who is not registered has an address and a place.
//!
//! Two shapes: [`Shape::Tutorial`], the columns of Druid's tutorial of 2013, and [`Shape::Wikiticker`], those of the
//! stream of 2015. Of 10 million rows of the latter over 30 days, `channel` has 51 values, `cityName` 6 thousand,
//! `user` 350 thousand and `page` 3.3 million.

mod column;
mod name;
mod place;
mod random;
mod words;
mod write;

use std::fmt;
use std::str::FromStr;

use self::random::{Random, Skew, Weighted, mix, scale};
use self::words::{ADDED_BITS, DELETED_BITS, HOURS, NAMESPACES, WIKIS};
use crate::error::{Error, Result};
use crate::model::Timestamp;

pub use self::place::Place;
pub use self::write::{Batches, Format};

/// Pages that are drawn from. More rows than this find few new ones.
const PAGES: u64 = 6_200_000;
const USERS: u64 = 350_000;
const MAX_ROWS: u64 = 1 << 40;
const MAX_DAYS: u32 = 1 << 15;
const HOUR_MS: u64 = 3_600_000;
const DAY_MS: i64 = 86_400_000;

/// Rows of the sample that `henge demo` loads.
pub const SAMPLE_ROWS: u64 = 100_000;

/// Which columns the rows have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Shape {
    /// Druid's tutorial of 2013: `timestamp`, `page`, `language`, `user`, `unpatrolled`, `newPage`, `robot`,
    /// `anonymous`, `namespace`, `continent`, `country`, `region`, `city`, `added`, `deleted`, `delta`.
    Tutorial,
    /// The stream of 2015: `time`, `channel`, `cityName`, `comment`, `countryIsoCode`, `countryName`, `isAnonymous`,
    /// `isMinor`, `isNew`, `isRobot`, `isUnpatrolled`, `metroCode`, `namespace`, `page`, `regionIsoCode`,
    /// `regionName`, `user`, `delta`, `added`, `deleted`.
    Wikiticker,
}

impl FromStr for Shape {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self> {
        match text {
            "tutorial" => Ok(Self::Tutorial),
            "wikiticker" => Ok(Self::Wikiticker),
            _ => {
                Err(Error::invalid_input(format!("`{text}` is no shape of Wikipedia; use `tutorial` or `wikiticker`")))
            }
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tutorial => "tutorial",
            Self::Wikiticker => "wikiticker",
        })
    }
}

/// What to make. The same options give the same rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Options {
    pub shape: Shape,
    /// At least 1, at most 2^40.
    pub rows: u64,
    /// First instant of the first day.
    pub start: Timestamp,
    /// The rows are spread over so many days: at least 1, at most 32,768.
    pub days: u32,
    pub seed: u64,
}

impl Options {
    /// `rows` over one day: 2013-08-01 of the tutorial, 2015-09-12 of wikiticker.
    pub fn new(shape: Shape, rows: u64) -> Self {
        let start = match shape {
            Shape::Tutorial => 1_375_315_200_000,
            Shape::Wikiticker => 1_442_016_000_000,
        };
        Self { shape, rows, start: Timestamp::from_millis(start), days: 1, seed: 42 }
    }

    /// The sample that `henge demo` loads.
    pub fn sample() -> Self {
        Self::new(Shape::Tutorial, SAMPLE_ROWS)
    }
}

/// One edit. Borrows the tables of the [`Wikipedia`] that made it.
#[derive(Clone, Debug)]
pub struct Edit<'a> {
    pub time: Timestamp,
    /// `#en.wikipedia`
    pub channel: &'static str,
    /// `en`
    pub language: &'static str,
    /// As the stream of 2015 writes it, and as the tutorial does.
    pub namespace: (&'static str, &'static str),
    pub page: String,
    pub user: String,
    pub comment: String,
    pub anonymous: bool,
    pub minor: bool,
    pub new: bool,
    pub robot: bool,
    pub unpatrolled: bool,
    pub place: Option<&'a Place>,
    /// Bytes.
    pub added: i64,
    /// Bytes.
    pub deleted: i64,
}

impl Edit<'_> {
    /// Bytes the page grew by.
    pub fn delta(&self) -> i64 {
        self.added - self.deleted
    }
}

/// The generator: a table of edits, each made when it is asked for.
#[derive(Debug)]
pub struct Wikipedia {
    options: Options,
    world: place::World,
    users: Skew,
    /// For each channel, how many pages the channels before it have, and its own.
    pages: Vec<(u64, Skew)>,
    channels: Weighted,
    namespaces: Weighted,
    added_bits: Weighted,
    deleted_bits: Weighted,
    /// Edits of the day before each hour, and of the whole day last.
    hours: [u64; 25],
}

impl Wikipedia {
    pub fn new(options: Options) -> Result<Self> {
        check(&options)?;
        let mut hours = [0; 25];
        for (hour, edits) in HOURS.into_iter().enumerate() {
            hours[hour + 1] = hours[hour] + edits;
        }
        Ok(Self {
            options,
            world: place::World::new(),
            users: Skew::new(USERS),
            pages: pages(),
            channels: Weighted::new(WIKIS.iter().map(|wiki| wiki.weight)),
            namespaces: Weighted::new(NAMESPACES.iter().map(|namespace| namespace.2)),
            added_bits: Weighted::new(ADDED_BITS),
            deleted_bits: Weighted::new(DELETED_BITS),
            hours,
        })
    }

    pub fn options(&self) -> &Options {
        &self.options
    }

    /// All edits in order of time.
    pub fn edits(&self) -> impl Iterator<Item = Edit<'_>> {
        (0..self.options.rows).map(|row| self.edit(row))
    }

    /// The edit at `row`, which is below the number of rows.
    pub fn edit(&self, row: u64) -> Edit<'_> {
        let (mut page, mut user, mut comment) = Default::default();
        self.edit_into(row, &mut page, &mut user, &mut comment)
    }

    /// The same, in strings that are used again.
    fn edit_into(&self, row: u64, page: &mut String, user: &mut String, comment: &mut String) -> Edit<'_> {
        let mut random = Random::for_row(self.options.seed, row);
        let time = self.time(row, &mut random);
        let visit = self.visit(row);
        let (name, localized, _) = NAMESPACES[visit.namespace];
        page.clear();
        if visit.namespace != 0 {
            page.push_str(name);
            page.push(':');
        }
        name::title(page, WIKIS[visit.wiki].script, visit.page);
        user.clear();
        match visit.anonymous {
            true => name::address(user, visit.user),
            false => name::user(user, visit.user, visit.robot),
        }
        let new = random.one_in(17);
        comment.clear();
        name::comment(comment, random.next(), visit.robot, new);
        let (added, deleted) = self.bytes(&mut random);
        let placed = visit.anonymous || self.options.shape == Shape::Tutorial;
        Edit {
            time,
            channel: WIKIS[visit.wiki].channel,
            language: WIKIS[visit.wiki].language(),
            namespace: (name, localized),
            page: std::mem::take(page),
            user: std::mem::take(user),
            comment: std::mem::take(comment),
            anonymous: visit.anonymous,
            minor: random.below(4) < if visit.robot { 3 } else { 1 },
            new,
            robot: visit.robot,
            unpatrolled: !visit.robot && random.one_in(4),
            place: placed.then(|| self.world.of_user(visit.user)),
            added,
            deleted,
        }
    }

    /// Each row has an equal share of the weight of all hours, and falls somewhere in its share.
    fn time(&self, row: u64, random: &mut Random) -> Timestamp {
        const FRACTION: u32 = 20;
        let day_weight = self.hours[24] << FRACTION;
        let total = u128::from(day_weight) * u128::from(self.options.days);
        let at =
            ((u128::from(row) << 32) | u128::from(random.next() >> 32)) * total / (u128::from(self.options.rows) << 32);
        let day = (at / u128::from(day_weight)) as i64;
        let in_day = (at % u128::from(day_weight)) as u64;
        let hour = self.hours.partition_point(|before| before << FRACTION <= in_day) - 1;
        let in_hour = in_day - (self.hours[hour] << FRACTION);
        let millis = scale_hour(in_hour, HOURS[hour] << FRACTION) + hour as u64 * HOUR_MS;
        Timestamp::from_millis(self.options.start.millis() + day * DAY_MS + millis as i64)
    }

    /// Who edits what. Every eighth edit is by the same user on the same page as the one before it.
    fn visit(&self, row: u64) -> Visit {
        let mut source = row;
        while source > 0 && mix(self.options.seed ^ !source).is_multiple_of(8) {
            source -= 1;
        }
        let mut random = Random::for_row(!self.options.seed, source);
        let user = self.users.pick(random.next());
        let home = self.channels.pick(mix(user ^ 0x5151));
        let wiki = match random.one_in(16) {
            true => self.channels.pick(random.next()),
            false => home,
        };
        let (pages_before, pages) = &self.pages[wiki];
        let page = pages_before + pages.pick(random.next());
        let namespace = self.namespaces.pick(mix(page));
        let anonymous = user >= 500 && mix(user ^ 0x1313).is_multiple_of(8);
        // The second wiki, Vietnamese, was written by robots that week; elsewhere they are among the busiest users.
        let human = mix(user ^ 0x7272).is_multiple_of(if home == 1 { 8 } else { 3 });
        let robot = !anonymous && !human && (home == 1 || user < 2000);
        Visit { wiki, page, namespace, user, anonymous, robot }
    }

    /// Bytes added and deleted: seldom both.
    fn bytes(&self, random: &mut Random) -> (i64, i64) {
        match random.below(100) {
            0..18 => (0, draw_bits(&self.deleted_bits, random)),
            18..20 => (draw_bits(&self.added_bits, random), draw_bits(&self.deleted_bits, random)),
            _ => (draw_bits(&self.added_bits, random), 0),
        }
    }
}

/// Every channel has its part of the pages.
fn pages() -> Vec<(u64, Skew)> {
    let edits: u64 = WIKIS.iter().map(|wiki| wiki.weight).sum();
    let mut before = 0;
    let parts = WIKIS.iter().map(|wiki| {
        let count = PAGES * wiki.weight / edits;
        before += count;
        (before - count, Skew::new(count))
    });
    parts.collect()
}

struct Visit {
    wiki: usize,
    page: u64,
    namespace: usize,
    user: u64,
    anonymous: bool,
    robot: bool,
}

/// `offset` of `length` as milliseconds of an hour.
fn scale_hour(offset: u64, length: u64) -> u64 {
    offset * HOUR_MS / length
}

/// A number with as many bits as the weights say.
fn draw_bits(weights: &Weighted, random: &mut Random) -> i64 {
    match weights.pick(random.next()) as u32 {
        0 => 0,
        bits => ((1 << (bits - 1)) + scale(random.next(), 1 << (bits - 1))) as i64,
    }
}

fn check(options: &Options) -> Result<()> {
    if !(1..=MAX_ROWS).contains(&options.rows) {
        return Err(Error::invalid_input(format!("{} rows cannot be made; ask for 1 to {MAX_ROWS}", options.rows)));
    }
    if !(1..=MAX_DAYS).contains(&options.days) {
        return Err(Error::invalid_input(format!("{} days cannot be filled; ask for 1 to {MAX_DAYS}", options.days)));
    }
    let end = options.start.millis().checked_add(i64::from(options.days) * DAY_MS);
    if options.start < Timestamp::MIN || end.is_none_or(|end| end > Timestamp::MAX.millis()) {
        return Err(Error::invalid_input(format!("{} is too far from now to start at", options.start)));
    }
    Ok(())
}

#[cfg(test)]
mod tests;
