//! Where edits come from: real countries, invented regions and cities.

use super::name;
use super::random::{Skew, Weighted, mix};
use super::words::COUNTRIES;

/// Where a user sits. What is not known is `None`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    pub continent: &'static str,
    pub country: &'static str,
    /// ISO 3166-1, two letters.
    pub country_code: &'static str,
    pub region: Option<String>,
    pub region_code: Option<String>,
    pub city: Option<String>,
    /// The television market, of places in the United States.
    pub metro_code: Option<i64>,
}

/// About 540 regions and 6,000 cities in 102 countries.
#[derive(Debug)]
pub(super) struct World {
    country_weights: Weighted,
    countries: Vec<Country>,
}

#[derive(Debug)]
struct Country {
    unknown: Place,
    cities: Vec<Place>,
    skew: Skew,
}

impl World {
    pub(super) fn new() -> Self {
        let total: u64 = COUNTRIES.iter().map(|country| country.3).sum();
        let (mut regions_before, mut cities_before) = (0, 0);
        let mut countries = Vec::with_capacity(COUNTRIES.len());
        for (code, name, continent, weight) in COUNTRIES {
            let regions = 1 + weight * 440 / total;
            let cities = 6 + weight * 5400 / total;
            let unknown = Place {
                continent,
                country: name,
                country_code: code,
                region: None,
                region_code: None,
                city: None,
                metro_code: None,
            };
            let cities_here = (0..cities)
                .map(|city| Place {
                    region: Some(name::place(regions_before + city % regions)),
                    region_code: Some(format!("{:02}", city % regions + 1)),
                    city: Some(name::place(700 + cities_before + city)),
                    metro_code: (code == "US").then_some(500 + (city % 210) as i64),
                    ..unknown.clone()
                })
                .collect();
            regions_before += regions;
            cities_before += cities;
            countries.push(Country { unknown, cities: cities_here, skew: Skew::new(cities) });
        }
        Self { country_weights: Weighted::new(COUNTRIES.iter().map(|country| country.3)), countries }
    }

    /// Where the user with this hash sits; of every third only the country is known.
    pub(super) fn of_user(&self, hash: u64) -> &Place {
        let country = &self.countries[self.country_weights.pick(mix(hash ^ 1))];
        match mix(hash ^ 2) % 3 {
            0 => &country.unknown,
            _ => &country.cities[country.skew.pick(mix(hash ^ 3)) as usize],
        }
    }
}
