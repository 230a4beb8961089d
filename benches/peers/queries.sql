-- Questions that people ask about Wikipedia's edits, over 10 million rows of 30 days from 2015-09-12.
-- Each is plain SQL that Henge, DuckDB and chDB all take. {page} and {user} stand for one of the busiest hundreds.
-- All answers are compared between the engines: those with LIMIT have an order that leaves no ties.

-- name: count
SELECT COUNT(*) FROM wikiticker;
-- name: total
SELECT SUM(added), SUM(deleted), SUM(delta), MIN(added), MAX(added) FROM wikiticker;
-- name: total_one_day
SELECT SUM(added), SUM(deleted), COUNT(*) FROM wikiticker WHERE __time >= TIMESTAMP '2015-09-20 00:00:00' AND __time < TIMESTAMP '2015-09-21 00:00:00';
-- name: total_robots_en
SELECT COUNT(*), SUM(added) FROM wikiticker WHERE channel = '#en.wikipedia' AND "isRobot" = 'true';
-- name: by_day
SELECT date_trunc('day', __time) AS t, COUNT(*), SUM(added) FROM wikiticker GROUP BY 1 ORDER BY 1;
-- name: by_hour
SELECT date_trunc('hour', __time) AS t, COUNT(*), SUM(added) FROM wikiticker GROUP BY 1 ORDER BY 1;
-- name: by_minute_one_day
SELECT date_trunc('minute', __time) AS t, COUNT(*), SUM(added) FROM wikiticker WHERE __time >= TIMESTAMP '2015-09-20 00:00:00' AND __time < TIMESTAMP '2015-09-21 00:00:00' GROUP BY 1 ORDER BY 1;
-- name: by_channel
SELECT channel, COUNT(*) AS n, SUM(added) FROM wikiticker GROUP BY 1 ORDER BY n DESC, channel LIMIT 10;
-- name: by_channel_min_max
SELECT channel, COUNT(*), SUM(added), MIN(added), MAX(added), MIN(deleted), MAX(deleted) FROM wikiticker GROUP BY 1 ORDER BY 1;
-- name: by_channel_avg
SELECT channel, AVG(delta), COUNT("cityName") FROM wikiticker GROUP BY 1 ORDER BY 1;
-- name: by_city
SELECT "cityName", COUNT(*) AS n, SUM(added) FROM wikiticker WHERE "cityName" IS NOT NULL GROUP BY 1 ORDER BY n DESC, 1 LIMIT 20;
-- name: by_user
SELECT COUNT(*), SUM(n) FROM (SELECT "user", COUNT(*) AS n, SUM(added) FROM wikiticker GROUP BY 1) t;
-- name: top_users
SELECT "user", COUNT(*) AS n, SUM(added) FROM wikiticker GROUP BY 1 ORDER BY n DESC, 1 LIMIT 10;
-- name: top_pages
SELECT page, COUNT(*) AS n, SUM(added) AS a FROM wikiticker GROUP BY 1 ORDER BY n DESC, 1 LIMIT 10;
-- name: top_pages_de_added
SELECT page, SUM(added) AS a FROM wikiticker WHERE channel = '#de.wikipedia' GROUP BY 1 ORDER BY a DESC, 1 LIMIT 10;
-- name: top_pages_one_day
SELECT page, COUNT(*) AS n FROM wikiticker WHERE __time >= TIMESTAMP '2015-09-20 00:00:00' AND __time < TIMESTAMP '2015-09-21 00:00:00' GROUP BY 1 ORDER BY n DESC, 1 LIMIT 10;
-- name: by_channel_namespace
SELECT channel, namespace, COUNT(*) AS n FROM wikiticker GROUP BY 1, 2 ORDER BY n DESC, 1, 2 LIMIT 50;
-- name: by_channel_user
SELECT channel, "user", COUNT(*) AS n, SUM(added) FROM wikiticker GROUP BY 1, 2 ORDER BY n DESC, 1, 2 LIMIT 10;
-- name: by_hour_channel
SELECT date_trunc('hour', __time) AS t, channel, COUNT(*), SUM(added) FROM wikiticker GROUP BY 1, 2 ORDER BY 1, 2;
-- name: by_hour_en_robots
SELECT date_trunc('hour', __time) AS t, COUNT(*), SUM(added) FROM wikiticker WHERE channel = '#en.wikipedia' AND "isRobot" = 'true' GROUP BY 1 ORDER BY 1;
-- name: week_by_channel
SELECT channel, COUNT(*) AS n, SUM(delta) FROM wikiticker WHERE __time >= TIMESTAMP '2015-09-20 00:00:00' AND __time < TIMESTAMP '2015-09-27 00:00:00' GROUP BY 1 ORDER BY n DESC, 1;
-- name: three_channels
SELECT channel, COUNT(*), SUM(added) FROM wikiticker WHERE channel IN ('#en.wikipedia', '#fr.wikipedia', '#ja.wikipedia') GROUP BY 1 ORDER BY 1;
-- name: like_page
SELECT COUNT(*), SUM(added) FROM wikiticker WHERE page LIKE 'User talk:%';
-- name: regex_page
SELECT channel, COUNT(*) FROM wikiticker WHERE {match(page, '(Bridge|Castle) of [KLM]')} GROUP BY 1 ORDER BY 1;
-- name: needle_page
SELECT COUNT(*), SUM(added), MIN(__time), MAX(__time) FROM wikiticker WHERE page = '{page}';
-- name: needle_user
SELECT page, SUM(added) AS a FROM wikiticker WHERE "user" = '{user}' GROUP BY 1 ORDER BY a DESC, 1 LIMIT 10;
-- name: distinct_users
SELECT COUNT(DISTINCT "user") FROM wikiticker;
-- name: distinct_users_by_channel
SELECT channel, COUNT(DISTINCT "user") FROM wikiticker GROUP BY 1 ORDER BY 1;
-- name: approx_users_by_channel
SELECT channel, {approx("user")} FROM wikiticker GROUP BY 1 ORDER BY 1;
-- name: not_and_or
SELECT COUNT(*), SUM(added) FROM wikiticker WHERE (channel <> '#en.wikipedia' AND namespace = 'Talk') OR ("isNew" = 'true' AND NOT "isRobot" = 'true');
-- name: one_hour
SELECT channel, COUNT(*), SUM(added) FROM wikiticker WHERE __time >= TIMESTAMP '2015-09-20 13:00:00' AND __time < TIMESTAMP '2015-09-20 14:00:00' GROUP BY 1 ORDER BY 1;
-- name: newest_100
SELECT __time, page, "user", added, deleted, delta FROM wikiticker WHERE channel = '#de.wikipedia' ORDER BY __time DESC, page, "user" LIMIT 100;
-- name: newest_all
SELECT __time, channel, "cityName", "countryName", namespace, page, "regionName", "user", added, deleted, delta FROM wikiticker ORDER BY __time DESC, page, "user" LIMIT 100;
-- name: large_edits
SELECT __time, page, "user", added FROM wikiticker WHERE added > 30000 ORDER BY added DESC, __time, page LIMIT 20;
-- name: raw_scan
SELECT SUM(CHAR_LENGTH(page)), SUM(CHAR_LENGTH("user")) FROM wikiticker WHERE namespace = 'Main';
