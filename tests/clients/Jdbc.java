// pgjdbc, as JDBC tools use it: HOST PORT USER DATABASE TABLE. Run as a source file: java -cp postgresql.jar Jdbc.java …
import java.sql.*;
import java.util.*;

public class Jdbc {
    static String url, user, table;
    static int failed = 0;

    interface Check { void run(Connection connection) throws Exception; }

    static void check(String name, Check check) {
        try (Connection connection = DriverManager.getConnection(url, user, "")) {
            check.run(connection);
            System.out.println("ok " + name);
        } catch (Throwable error) {
            failed++;
            StackTraceElement[] trace = error.getStackTrace();
            String place = Arrays.stream(trace).filter(t -> t.getClassName().startsWith("Jdbc")).findFirst().map(Object::toString).orElse("");
            System.out.println("FAILED " + name + ": " + error + " at " + place);
        }
    }

    static void that(boolean holds, Object words) { if (!holds) throw new AssertionError(words); }

    static List<String> column(ResultSet rows, String name) throws SQLException {
        List<String> values = new ArrayList<>();
        while (rows.next()) values.add(rows.getString(name));
        return values;
    }

    static void fails(String code, Connection connection, String sql) throws SQLException {
        try (Statement statement = connection.createStatement()) {
            statement.executeQuery(sql);
        } catch (SQLException error) {
            that(code.equals(error.getSQLState()), error.getSQLState() + " instead of " + code + ": " + error.getMessage());
            return;
        }
        throw new AssertionError("no error " + code);
    }

    public static void main(String[] args) {
        url = "jdbc:postgresql://" + args[0] + ":" + args[1] + "/" + args[3];
        user = args[2];
        table = args[4];
        // A JVM's time zone is the session's; answers must not depend on it.
        TimeZone.setDefault(TimeZone.getTimeZone("America/New_York"));
        check("product", c -> {
            DatabaseMetaData meta = c.getMetaData();
            that(meta.getDatabaseProductName().equals("PostgreSQL") && meta.getDatabaseMajorVersion() == 15, meta.getDatabaseProductVersion());
            that(c.isValid(5) && c.getCatalog().equals(args[3]), c.getCatalog());
            that("druid".equals(c.getSchema()), c.getSchema());
            that(meta.getSQLKeywords().length() > 0 && meta.getNumericFunctions().length() > 0, "keywords");
            that(meta.getMaxColumnNameLength() == 63, meta.getMaxColumnNameLength());
        });
        check("schemas and tables", c -> {
            DatabaseMetaData meta = c.getMetaData();
            that(column(meta.getSchemas(), "TABLE_SCHEM").contains("druid"), "schemas");
            that(column(meta.getSchemas(null, "dru%"), "TABLE_SCHEM").equals(List.of("druid")), "schemas by pattern");
            that(column(meta.getCatalogs(), "TABLE_CAT").contains(args[3]), "catalogs");
            that(column(meta.getTableTypes(), "TABLE_TYPE").contains("TABLE"), "types of tables");
            that(column(meta.getTables(null, "druid", "%", new String[] {"TABLE", "VIEW"}), "TABLE_NAME").contains(table), "tables");
            that(column(meta.getTables(null, null, table, null), "TABLE_NAME").equals(List.of(table)), "tables by name");
            that(column(meta.getTables(null, "pg_catalog", "pg_class", new String[] {"SYSTEM TABLE"}), "TABLE_NAME").contains("pg_class"), "system tables");
        });
        check("columns", c -> {
            Map<String, Integer> types = new HashMap<>();
            Map<String, String> nullable = new HashMap<>();
            try (ResultSet rows = c.getMetaData().getColumns(null, "druid", table, null)) {
                while (rows.next()) {
                    types.put(rows.getString("COLUMN_NAME"), rows.getInt("DATA_TYPE"));
                    nullable.put(rows.getString("COLUMN_NAME"), rows.getString("IS_NULLABLE"));
                }
            }
            that(types.get("__time") == Types.TIMESTAMP && types.get("page") == Types.VARCHAR && types.get("added") == Types.BIGINT, types);
            that(nullable.get("__time").equals("NO") && nullable.get("cityName").equals("YES"), nullable);
        });
        check("no keys where there are none", c -> {
            DatabaseMetaData meta = c.getMetaData();
            that(!meta.getPrimaryKeys(null, "druid", table).next(), "primary keys");
            that(!meta.getImportedKeys(null, "druid", table).next(), "imported keys");
            that(!meta.getExportedKeys(null, "druid", table).next(), "exported keys");
            that(!meta.getCrossReference(null, "druid", table, null, "druid", table).next(), "cross reference");
            that(!meta.getIndexInfo(null, "druid", table, false, true).next(), "indexes");
            meta.getBestRowIdentifier(null, "druid", table, DatabaseMetaData.bestRowSession, true).close();
            meta.getVersionColumns(null, "druid", table).close();
        });
        check("types, functions, privileges", c -> {
            DatabaseMetaData meta = c.getMetaData();
            that(column(meta.getTypeInfo(), "TYPE_NAME").containsAll(List.of("int8", "text", "timestamp", "numeric")), "types");
            that(column(meta.getFunctions(null, null, "date_trunc"), "FUNCTION_NAME").contains("date_trunc"), "functions");
            meta.getFunctionColumns(null, null, "date_trunc", null).close();
            meta.getProcedures(null, null, "%").close();
            meta.getProcedureColumns(null, null, "%", null).close();
            meta.getTablePrivileges(null, "druid", table).close();
            meta.getColumnPrivileges(null, "druid", table, "page").close();
            meta.getUDTs(null, null, "%", null).close();
            meta.getClientInfoProperties().close();
        });
        check("values of every type", c -> {
            try (ResultSet row = c.createStatement().executeQuery("select true, 1::smallint, 2::int, 3::bigint, 1.5::real, 2.5::float8, "
                    + "12.34::numeric(10,2), 'x'::text, date '2015-09-12', timestamp '2015-09-12 10:00:00', array['a','b'], null::text")) {
                that(row.next(), "a row");
                that(row.getBoolean(1) && row.getInt(2) == 1 && row.getInt(3) == 2 && row.getLong(4) == 3, "numbers");
                that(row.getFloat(5) == 1.5f && row.getDouble(6) == 2.5 && row.getBigDecimal(7).toString().equals("12.34"), "fractions");
                that(row.getString(8).equals("x") && row.getString(9).equals("2015-09-12"), "text and date");
                that(row.getTimestamp(10).toLocalDateTime().toString().equals("2015-09-12T10:00"), row.getTimestamp(10));
                that(Arrays.equals((String[]) row.getArray(11).getArray(), new String[] {"a", "b"}), "array");
                row.getString(12);
                that(row.wasNull(), "null");
            }
        });
        check("parameters", c -> {
            String count = "select count(*) from " + table + " where ";
            Object[][] asked = {{"channel <> ?", "nowhere"}, {"added >= ?", 0}, {"added >= ?", 0L}, {"added >= ?", -0.5}, {"channel is not null and ?", true}};
            for (Object[] question : asked) {
                try (PreparedStatement statement = c.prepareStatement(count + question[0])) {
                    statement.setObject(1, question[1]);
                    for (int i = 0; i < 7; i++) {
                        ResultSet row = statement.executeQuery();
                        that(row.next() && row.getLong(1) > 0, question[0]);
                    }
                }
            }
            try (PreparedStatement statement = c.prepareStatement(count + "\"__time\" >= ? and \"__time\" > ?")) {
                statement.setTimestamp(1, Timestamp.valueOf("2000-01-01 00:00:00"));
                statement.setDate(2, java.sql.Date.valueOf("2000-01-01"));
                ResultSet row = statement.executeQuery();
                that(row.next() && row.getLong(1) > 0, "times");
            }
            try (PreparedStatement statement = c.prepareStatement("select page from " + table + " where channel <> all(?) limit ?")) {
                statement.setArray(1, c.createArrayOf("text", new String[] {"x", "y"}));
                statement.setInt(2, 5);
                that(column(statement.executeQuery(), "page").size() == 5, "an array and a limit");
                that(statement.getParameterMetaData().getParameterCount() == 2, "parameters");
            }
        });
        check("a JVM elsewhere gets the same hours", c -> {
            String sql = "select extract(hour from min(\"__time\"))::int, min(\"__time\")::text, count(*) from " + table + " where \"__time\" >= ?";
            try (PreparedStatement statement = c.prepareStatement(sql)) {
                statement.setObject(1, java.time.LocalDateTime.parse("2000-01-01T00:00:00"));
                ResultSet row = statement.executeQuery();
                that(row.next(), "a row");
                that(row.getString(2).substring(11, 13).equals(String.format("%02d", row.getInt(1))), row.getString(2));
            }
        });
        check("fetch size", c -> {
            c.setAutoCommit(false);
            try (Statement one = c.createStatement(); Statement two = c.createStatement()) {
                one.setFetchSize(50);
                two.setFetchSize(7);
                ResultSet a = one.executeQuery("select page from " + table + " limit 500"), b = two.executeQuery("select page from " + table + " limit 70");
                int rows = 0;
                while (a.next()) { rows++; if (rows % 10 == 0) that(!b.isClosed() && (rows > 700 || b.next() || rows > 70), "interleaved"); }
                that(rows == 500, rows);
            }
            c.commit();
        });
        check("transactions and savepoints", c -> {
            c.setAutoCommit(false);
            Savepoint point = c.setSavepoint("here");
            fails("42P01", c, "select * from no_such_table");
            fails("25P02", c, "select 1");
            c.rollback(point);
            c.createStatement().executeQuery("select 1");
            c.releaseSavepoint(point);
            c.commit();
            c.setReadOnly(true);
            c.setTransactionIsolation(Connection.TRANSACTION_REPEATABLE_READ);
            c.createStatement().executeQuery("select 1");
            c.rollback();
        });
        check("errors", c -> {
            fails("42601", c, "selec 1");
            fails("42703", c, "select nope from " + table);
            fails("22012", c, "select 1/0");
        });
        check("a query is timed out, and the next one runs", c -> {
            try (Statement statement = c.createStatement()) {
                statement.setQueryTimeout(1);
                statement.executeQuery("select count(*) from " + table + " a, " + table + " b, " + table + " c where a.page || b.page || c.page like '%qqq%'");
                throw new AssertionError("no timeout");
            } catch (SQLException error) {
                that("57014".equals(error.getSQLState()), error.getSQLState());
            }
            c.createStatement().executeQuery("select 1");
        });
        check("copies out and in", c -> {
            org.postgresql.copy.CopyManager copies = c.unwrap(org.postgresql.PGConnection.class).getCopyAPI();
            java.io.StringWriter out = new java.io.StringWriter();
            that(copies.copyOut("copy (select page from " + table + " limit 7) to stdout csv", out) == 7, "rows");
        });
        check("a temporary table", c -> {
            try (Statement statement = c.createStatement()) {
                statement.execute("create temporary table own (n bigint, name text)");
                that(statement.executeUpdate("insert into own values (1, 'a'), (2, null)") == 2, "rows");
                try (PreparedStatement insert = c.prepareStatement("insert into own values (?, ?)")) {
                    for (int i = 0; i < 3; i++) { insert.setLong(1, i); insert.setString(2, "x"); insert.addBatch(); }
                    that(insert.executeBatch().length == 3, "batch");
                }
                ResultSet row = statement.executeQuery("select count(*) from own");
                that(row.next() && row.getInt(1) == 5, row.getInt(1));
            }
        });
        System.exit(failed == 0 ? 0 : 1);
    }
}
