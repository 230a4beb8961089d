//! One query of every kind that is cut into stages in a way of its own.

/// A table that only the broker has.
pub const LOOKUP: &str = "CREATE TEMPORARY TABLE names AS \
    SELECT * FROM (VALUES ('#en.wikipedia', 'English'), ('#de.wikipedia', 'German'), ('#fr.wikipedia', 'French'), \
    ('#xx.wikipedia', 'Nobody''s'), ('#ja.wikipedia', NULL)) AS v(code, name)";

pub const QUESTIONS: [(&str, &str); 60] = [
    (
        "top_n",
        "SELECT channel, SUM(added) AS s, COUNT(*) AS c FROM wikiticker WHERE __time >= TIMESTAMP '2015-09-12 06:00:00' \
         GROUP BY channel ORDER BY 2 DESC, 1 LIMIT 5",
    ),
    (
        "lookup_join",
        "SELECT n.name, SUM(w.added) AS s FROM wikiticker w JOIN names n ON w.channel = n.code GROUP BY n.name ORDER BY 1",
    ),
    ("count_distinct", "SELECT COUNT(DISTINCT user) FROM wikiticker"),
    ("count_distinct_by", "SELECT channel, COUNT(DISTINCT page) FROM wikiticker GROUP BY channel ORDER BY 1"),
    (
        "window",
        "SELECT channel, h, s, SUM(s) OVER (PARTITION BY channel ORDER BY h) AS rs FROM (SELECT channel, \
         date_trunc('hour', __time) AS h, SUM(added) AS s FROM wikiticker GROUP BY 1, 2)",
    ),
    (
        "window_without_partition",
        "SELECT h, s, SUM(s) OVER (ORDER BY h) AS rs FROM (SELECT date_trunc('hour', __time) AS h, SUM(added) AS s \
         FROM wikiticker GROUP BY 1)",
    ),
    (
        "window_over_rows",
        "SELECT channel, row_number() OVER (PARTITION BY channel ORDER BY __time, page, user, delta) FROM wikiticker \
         WHERE added > 300",
    ),
    ("global", "SELECT COUNT(*), SUM(added), MIN(__time), MAX(__time), AVG(delta) FROM wikiticker"),
    ("global_filtered", "SELECT COUNT(*), SUM(added), MIN(page), MAX(user) FROM wikiticker WHERE isRobot = 'true'"),
    (
        "first_rows",
        "SELECT added, user, __time, channel, page FROM wikiticker ORDER BY added DESC, user, __time, channel, page LIMIT 5",
    ),
    ("latest_rows", "SELECT __time, page, user, delta FROM wikiticker ORDER BY __time DESC, page, user, delta LIMIT 9"),
    (
        "one_day",
        "SELECT channel, SUM(added) FROM wikiticker WHERE __time < TIMESTAMP '2015-09-13' GROUP BY channel ORDER BY 1",
    ),
    ("no_segment", "SELECT COUNT(*) FROM wikiticker WHERE __time < TIMESTAMP '2001-01-01'"),
    ("no_segment_grouped", "SELECT channel, COUNT(*) FROM wikiticker WHERE __time < TIMESTAMP '2001-01-01' GROUP BY 1"),
    (
        "union_all",
        "SELECT COUNT(*), SUM(added) FROM (SELECT added FROM wikiticker WHERE isRobot = 'true' UNION ALL SELECT added * 2 \
         FROM wikiticker WHERE isRobot = 'false')",
    ),
    (
        "union_of_sources",
        "SELECT COUNT(*), SUM(x) FROM (SELECT added AS x FROM wikiticker UNION ALL SELECT delta FROM wikipedia)",
    ),
    ("union_with_table", "SELECT COUNT(*) FROM (SELECT channel FROM wikiticker UNION ALL SELECT code FROM names)"),
    ("union_with_values", "SELECT SUM(x) FROM (SELECT added AS x FROM wikiticker UNION ALL VALUES (1), (2), (3))"),
    (
        "union_of_groups",
        "SELECT channel, COUNT(*) FROM wikiticker GROUP BY 1 UNION ALL SELECT namespace, SUM(added) FROM wikiticker GROUP BY 1",
    ),
    (
        "self_join_of_groups",
        "SELECT a.channel, a.s, b.s FROM (SELECT channel, SUM(added) s FROM wikiticker WHERE isRobot = 'true' GROUP BY 1) a \
         JOIN (SELECT channel, SUM(added) s FROM wikiticker WHERE isRobot = 'false' GROUP BY 1) b USING (channel) ORDER BY 1",
    ),
    (
        "self_join_of_rows",
        "SELECT COUNT(*) FROM wikiticker a JOIN wikiticker b ON a.user = b.user WHERE a.added > 200 AND b.added < 50",
    ),
    ("join_of_sources", "SELECT COUNT(*), SUM(a.added) FROM wikiticker a JOIN wikipedia b ON a.user = b.user"),
    ("scalar_subquery", "SELECT COUNT(*) FROM wikiticker WHERE added > (SELECT AVG(added) FROM wikiticker)"),
    ("in_subquery", "SELECT COUNT(*) FROM wikiticker WHERE user IN (SELECT user FROM wikiticker WHERE added > 400)"),
    (
        "not_in",
        "SELECT COUNT(*) FROM wikiticker WHERE page NOT IN (SELECT page FROM wikiticker WHERE added > 100 AND page IS NOT NULL)",
    ),
    ("not_in_nulls", "SELECT COUNT(*) FROM wikiticker WHERE channel NOT IN (SELECT name FROM names)"),
    (
        "exists",
        "SELECT code FROM names n WHERE EXISTS (SELECT 1 FROM wikiticker w WHERE w.channel = n.code AND w.added > 10) ORDER BY 1",
    ),
    (
        "not_exists",
        "SELECT code FROM names n WHERE NOT EXISTS (SELECT 1 FROM wikiticker w WHERE w.channel = n.code) ORDER BY 1",
    ),
    (
        "full_join_without_keys",
        "SELECT COUNT(*) FROM (SELECT DISTINCT channel c FROM wikiticker) a FULL JOIN names n ON a.c < n.code",
    ),
    (
        "full_join_of_rows",
        "SELECT COUNT(*) FROM (SELECT added x FROM wikiticker WHERE added > 400) a FULL JOIN \
         (SELECT added y FROM wikiticker WHERE added < 20) b ON a.x < b.y",
    ),
    ("cross_join", "SELECT COUNT(*) FROM names n CROSS JOIN (SELECT DISTINCT channel FROM wikiticker) w"),
    (
        "cross_join_of_rows",
        "SELECT COUNT(*), SUM(n.l) FROM wikiticker w CROSS JOIN (SELECT length(code) l FROM names) n",
    ),
    ("approximate", "SELECT approx_distinct(isRobot), approx_distinct(namespace) FROM wikiticker"),
    (
        "grouping_sets",
        "SELECT channel, date_trunc('hour', __time) h, SUM(added) FROM wikiticker \
         GROUP BY GROUPING SETS ((channel), (date_trunc('hour', __time)), ())",
    ),
    (
        "rollup",
        "SELECT GROUPING(channel), channel, isRobot, COUNT(*) FROM wikiticker GROUP BY ROLLUP (channel, isRobot)",
    ),
    (
        "distinct_and_not",
        "SELECT channel, COUNT(DISTINCT user), SUM(added), COUNT(DISTINCT added) FROM wikiticker GROUP BY channel",
    ),
    (
        "limit_of_build_side",
        "SELECT COUNT(*) FROM (SELECT code FROM names ORDER BY code LIMIT 3) n JOIN wikiticker w ON w.channel = n.code",
    ),
    (
        "limit_of_groups_as_build_side",
        "SELECT COUNT(*) FROM (SELECT DISTINCT channel AS c FROM wikiticker ORDER BY 1 LIMIT 7) n \
         JOIN wikiticker w ON w.channel = n.c",
    ),
    (
        "limit_without_order_as_build_side",
        "SELECT COUNT(*) FROM (SELECT 1 AS one FROM wikiticker LIMIT 7) a JOIN wikipedia b ON a.one = length(b.robot) - length(b.robot) + 1",
    ),
    ("limit_in_cross_join", "SELECT COUNT(*) FROM (SELECT added FROM wikiticker LIMIT 11) a CROSS JOIN wikipedia b"),
    (
        "limit_in_loop_join",
        "SELECT COUNT(*) FROM (SELECT 1 AS one FROM wikiticker LIMIT 5) a JOIN wikipedia b ON a.one <= b.added + 1000000",
    ),
    ("left_join", "SELECT COUNT(*), COUNT(n.name) FROM wikiticker w LEFT JOIN names n ON w.channel = n.code"),
    (
        "left_join_of_table",
        "SELECT COUNT(*), COUNT(w.added) FROM names n LEFT JOIN (SELECT channel, added FROM wikiticker WHERE added > 100) w \
         ON w.channel = n.code",
    ),
    (
        "full_join",
        "SELECT COUNT(*), COUNT(w.c), COUNT(n.name) FROM (SELECT DISTINCT channel c FROM wikiticker) w FULL JOIN names n \
         ON w.c = n.code",
    ),
    (
        "right_join",
        "SELECT n.code, COUNT(w.page) FROM wikiticker w RIGHT JOIN names n ON w.channel = n.code GROUP BY 1 ORDER BY 1",
    ),
    ("offset", "SELECT __time, added, page FROM wikiticker ORDER BY __time, added, page LIMIT 7 OFFSET 13"),
    ("limit_without_order", "SELECT COUNT(*) FROM (SELECT added FROM wikiticker LIMIT 17)"),
    ("limit_beyond", "SELECT COUNT(*) FROM (SELECT added FROM wikiticker LIMIT 1000000)"),
    ("limit_of_filtered", "SELECT COUNT(*) FROM (SELECT page FROM wikiticker WHERE isRobot = 'true' LIMIT 100)"),
    ("intersect", "SELECT COUNT(*) FROM (SELECT channel FROM wikiticker INTERSECT SELECT code FROM names)"),
    ("except", "SELECT COUNT(*) FROM (SELECT channel FROM wikiticker EXCEPT SELECT code FROM names)"),
    ("distinct", "SELECT DISTINCT channel, isRobot FROM wikiticker ORDER BY 1, 2"),
    (
        "having",
        "SELECT user, SUM(added) AS a FROM wikiticker GROUP BY user HAVING SUM(added) > 500 ORDER BY a DESC, user",
    ),
    (
        "groups_of_groups",
        "SELECT n, COUNT(*) FROM (SELECT page, COUNT(*) AS n FROM wikiticker GROUP BY page) GROUP BY n ORDER BY n",
    ),
    (
        "high_cardinality_top",
        "SELECT page, user, COUNT(*) AS n, SUM(delta) FROM wikiticker GROUP BY page, user ORDER BY n DESC, page, user LIMIT 20",
    ),
    ("median", "SELECT channel, median(added) FROM wikiticker GROUP BY channel ORDER BY 1"),
    (
        "functions",
        "SELECT upper(substr(channel, 2, 2)), TIME_FLOOR(__time, 'PT6H'), COUNT(*), SUM(added * 2 - deleted) FROM wikiticker GROUP BY 1, 2 ORDER BY 1, 2",
    ),
    (
        "filtered_aggregates",
        "SELECT namespace, SUM(added) FILTER (WHERE isRobot = 'true'), COUNT(*) FILTER (WHERE page LIKE 'U%') FROM wikiticker GROUP BY 1 ORDER BY 1",
    ),
    (
        "regex",
        "SELECT channel, COUNT(*) FROM wikiticker WHERE page ~ '[aeiou]$' AND added + deleted > 10 GROUP BY 1 ORDER BY 1",
    ),
    ("only_here", "SELECT COUNT(*), MIN(code) FROM names"),
];
