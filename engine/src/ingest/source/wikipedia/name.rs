//! Names of pages, users, places and comments: each a function of a number, different for different numbers.

use std::fmt::Write as _;

use super::random::mix;
use super::words::{ADJECTIVES, COMMENT_THINGS, COMMENT_VERBS, NOUNS, SYLLABLES, Script};

/// Titles that differ without a number at their end; beyond them numbers follow.
const TITLES: u64 = 1 << 24;

/// Appends the title of the page numbered `page`.
pub(super) fn title(out: &mut String, script: Script, page: u64) {
    // An odd factor permutes 24 bits: neighbours in number are far apart in the alphabet.
    let number = page.wrapping_mul(0x009e_3779) % TITLES;
    let digits = [18, 12, 6, 0].map(|shift| (number >> shift) as usize & 63);
    match script {
        Script::Latin => latin_title(out, digits),
        _ => foreign_title(out, script, digits),
    }
    if page >= TITLES {
        write(out, format_args!(" {}", page / TITLES + 1));
    }
}

fn latin_title(out: &mut String, [a, b, c, d]: [usize; 4]) {
    let (adjective, noun) = (ADJECTIVES[a], NOUNS[b]);
    let (first, second) = (Capital(SYLLABLES[c]), SYLLABLES[d]);
    match a % 8 {
        0 | 1 => write(out, format_args!("{adjective} {noun} of {first}{second}")),
        2 | 3 => write(out, format_args!("{first}{second} {adjective} {noun}")),
        4 => write(out, format_args!("{first}{second} ({adjective} {noun})")),
        5 => write(out, format_args!("List of {adjective} {noun}s in {first}{second}")),
        6 => write(out, format_args!("{first}{second}, {adjective} {noun}")),
        _ => write(out, format_args!("\"{adjective} {noun}\" – {first}{second}")),
    }
}

/// Four groups of two letters, of 8 × 8 letters each, with a space in the middle.
fn foreign_title(out: &mut String, script: Script, digits: [usize; 4]) {
    let (first, second): ([char; 8], [char; 8]) = match script {
        Script::Cyrillic => (['б', 'в', 'г', 'д', 'к', 'л', 'м', 'н'], ['а', 'е', 'и', 'о', 'у', 'ы', 'ю', 'я']),
        Script::Greek => (['β', 'γ', 'δ', 'κ', 'λ', 'μ', 'ν', 'π'], ['α', 'ε', 'η', 'ι', 'ο', 'υ', 'ω', 'ά']),
        Script::Kana => {
            (['ア', 'カ', 'サ', 'タ', 'ナ', 'ハ', 'マ', 'ラ'], ['イ', 'キ', 'シ', 'チ', 'ニ', 'ヒ', 'ミ', 'リ'])
        }
        Script::Han => {
            (['山', '川', '田', '林', '海', '東', '西', '大'], ['人', '木', '水', '石', '城', '門', '学', '国'])
        }
        Script::Hebrew => (['ב', 'ג', 'ד', 'ל', 'מ', 'נ', 'ר', 'ש'], ['א', 'ה', 'ו', 'י', 'ע', 'ק', 'ת', 'ח']),
        _ => (['ب', 'د', 'ر', 'س', 'ك', 'ل', 'م', 'ن'], ['ا', 'و', 'ي', 'ة', 'ى', 'ه', 'ح', 'ع']),
    };
    for (i, digit) in digits.into_iter().enumerate() {
        if i == 2 {
            out.push(' ');
        }
        out.push(first[digit >> 3]);
        out.push(second[digit & 7]);
    }
}

/// Appends the name of a registered user.
pub(super) fn user(out: &mut String, number: u64, robot: bool) {
    let [a, b, c] = [12, 6, 0].map(|shift| (number.wrapping_mul(0x0002_c1b3) >> shift) as usize & 63);
    write(out, format_args!("{}{}{}", Capital(SYLLABLES[a]), SYLLABLES[b], SYLLABLES[c]));
    match number >> 18 {
        0 => {}
        more => write(out, format_args!(" {more}")),
    }
    if robot {
        out.push_str("Bot");
    }
}

/// Appends the address of a user who is not registered, in a private network: nobody's.
pub(super) fn address(out: &mut String, number: u64) {
    let number = (number % (1 << 24)).wrapping_mul(0x005b_d1e9) % (1 << 24);
    write(out, format_args!("10.{}.{}.{}", number >> 16, (number >> 8) & 255, number & 255));
}

/// The name of a region or city: two syllables, a third for numbers past 4,096.
pub(super) fn place(number: u64) -> String {
    let scrambled = number.wrapping_mul(0x0b2d) % 4096;
    let mut name = String::new();
    write(
        &mut name,
        format_args!("{}{}", Capital(SYLLABLES[scrambled as usize >> 6]), SYLLABLES[scrambled as usize & 63]),
    );
    match number >> 12 {
        0 => {}
        more => write(&mut name, format_args!(" {}", Capital(SYLLABLES[more as usize & 63]))),
    }
    name
}

/// Appends what an editor says of the edit; sometimes nothing.
pub(super) fn comment(out: &mut String, random: u64, robot: bool, new: bool) {
    let hash = mix(random);
    let (verb, thing) = (COMMENT_VERBS[hash as usize & 15], COMMENT_THINGS[(hash >> 4) as usize & 15]);
    let section = NOUNS[(hash >> 8) as usize & 63];
    let detail = (hash >> 14) % 50_000;
    match (hash >> 40) % 8 {
        _ if new => write(out, format_args!("[[WP:AES|←]]Created page with '{section} {detail}'")),
        _ if robot => write(out, format_args!("Robot: {verb} {thing}, [[Task {}]] item {detail}", detail % 12)),
        0 => {}
        1 | 2 => write(out, format_args!("/* {section} */ ")),
        3..=5 => write(out, format_args!("/* {section} */ {verb} {thing} ({detail})")),
        _ => write(out, format_args!("{verb} {thing}, see [[{section} {detail}]]")),
    }
}

/// A syllable with its first letter, which is ASCII, made large.
struct Capital(&'static str);

impl std::fmt::Display for Capital {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (first, rest) = self.0.split_at(1);
        f.write_char(first.as_bytes()[0].to_ascii_uppercase().into())?;
        f.write_str(rest)
    }
}

/// Writing into a string does not fail.
fn write(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    let _ = out.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn different_pages_have_different_titles() {
        for script in [Script::Latin, Script::Cyrillic, Script::Han] {
            let titles = (0..100_000).chain(TITLES..TITLES + 1000).map(|page| {
                let mut text = String::new();
                title(&mut text, script, page);
                text
            });
            assert_eq!(titles.collect::<HashSet<_>>().len(), 101_000, "{script:?}");
        }
    }

    #[test]
    fn different_numbers_have_different_users_and_addresses() {
        let (mut users, mut addresses) = (HashSet::new(), HashSet::new());
        for number in 0..400_000 {
            let (mut name, mut ip) = (String::new(), String::new());
            user(&mut name, number, false);
            address(&mut ip, number);
            users.insert(name);
            addresses.insert(ip);
        }
        assert_eq!((users.len(), addresses.len()), (400_000, 400_000));
    }

    #[test]
    fn different_numbers_have_different_places() {
        assert_eq!((0..7000).map(place).collect::<HashSet<_>>().len(), 7000);
    }
}
