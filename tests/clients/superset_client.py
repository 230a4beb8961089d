"""Superset itself, in one process: its engine for PostgreSQL, its data sets, SQL Lab, and charts by its REST API.

With HENGE_PICTURE=FILE it also serves, and has Chromium paint a dashboard of a time series and a table into FILE
(needs `playwright` and a `chromium` in the path).
"""
import json
import os
import shutil
import tempfile

from check import DATABASE, HOST, PORT, TABLE, USER, check, finish

HOME = tempfile.mkdtemp(prefix="henge-superset-")
CONFIG = os.path.join(HOME, "superset_config.py")
with open(CONFIG, "w") as config:
    config.write(
        f"SECRET_KEY = 'only for this test, which ends with its process'\n"
        f"SQLALCHEMY_DATABASE_URI = 'sqlite:///{HOME}/superset.db'\n"
        "WTF_CSRF_ENABLED = False\nTALISMAN_ENABLED = False\nRATELIMIT_ENABLED = False\n"
        "CONTENT_SECURITY_POLICY_WARNING = False\n"
    )
os.environ["SUPERSET_CONFIG_PATH"] = CONFIG
os.environ["SUPERSET_HOME"] = HOME

from flask_migrate import upgrade  # noqa: E402
from superset.app import create_app  # noqa: E402

app = create_app()
with app.app_context():
    from superset import security_manager

    upgrade(directory=os.path.join(os.path.dirname(__import__("superset").__file__), "migrations"))
    app.appbuilder.add_permissions(update_perms=True)
    security_manager.sync_role_definitions()
    security_manager.add_user("admin", "Ada", "Admin", "ada@example.org", security_manager.find_role("Admin"), "admin")

client = app.test_client()
login = client.post("/api/v1/security/login", json={"username": "admin", "password": "admin", "provider": "db"})
HEADERS = {"Authorization": f"Bearer {login.json['access_token']}"}
DAY = None
database = data_set = columns = None


def call(method, path, body=None, wanted=(200, 201)):
    answer = client.open(path, method=method, json=body, headers=HEADERS)
    assert answer.status_code in wanted, f"{method} {path}: {answer.status_code} {answer.data[:400]}"
    return answer.json


def sql(text, wanted=(200, 201)):
    body = {"database_id": database, "schema": "druid", "sql": text, "runAsync": False, "queryLimit": 1000, "client_id": os.urandom(5).hex()}
    return call("POST", "/api/v1/sqllab/execute/", body, wanted)


def chart(query):
    body = {"datasource": {"id": data_set, "type": "table"}, "result_format": "json", "result_type": "full", "queries": [query]}
    result = call("POST", "/api/v1/chart/data", body)["result"][0]
    assert not result["error"], result["error"]
    return result["data"]


def metric(aggregate, column="added"):
    return {"expressionType": "SIMPLE", "column": {"column_name": column}, "aggregate": aggregate, "label": aggregate.lower()}


def by_time(grain):
    return {"timeGrain": grain, "columnType": "BASE_AXIS", "sqlExpression": "__time", "label": "__time", "expressionType": "SQL"}


def dimension():
    return "channel" if "channel" in columns else "language"


@check
def a_database_is_added_and_its_connection_tried():
    global database
    uri = f"postgresql+psycopg2://{USER}@{HOST}:{PORT}/{DATABASE}"
    database = call("POST", "/api/v1/database/", {"database_name": "Henge", "sqlalchemy_uri": uri, "expose_in_sqllab": True})["id"]


@check
def schemas_and_tables_are_listed():
    assert "druid" in call("GET", f"/api/v1/database/{database}/schemas/")["result"]
    tables = call("GET", f"/api/v1/database/{database}/tables/?q=(schema_name:druid)")["result"]
    assert any(table["value"] == TABLE and table["type"] == "table" for table in tables), tables
    metadata = call("GET", f"/api/v1/database/{database}/table_metadata/?name={TABLE}&schema=druid")
    assert metadata["primaryKey"] == {} or not metadata["primaryKey"].get("constrained_columns"), metadata["primaryKey"]
    assert metadata["foreignKeys"] == [] and metadata["indexes"] == []
    assert call("GET", f"/api/v1/database/{database}/select_star/{TABLE}/?schema_name=druid")["result"]


@check
def a_data_set_knows_its_columns():
    global data_set, columns
    data_set = call("POST", "/api/v1/dataset/", {"database": database, "schema": "druid", "table_name": TABLE})["id"]
    columns = {column["column_name"]: column for column in call("GET", f"/api/v1/dataset/{data_set}")["result"]["columns"]}
    # 0: number, 1: text, 2: time
    assert columns["__time"]["is_dttm"] and columns["__time"]["type_generic"] == 2
    assert columns["added"]["type_generic"] == 0 and columns["page"]["type_generic"] == 1


@check
def the_days_of_the_data_are_found():
    global DAY
    row = sql(f"SELECT date_trunc('day', min(__time)) AS first, date_trunc('day', max(__time)) + INTERVAL '1 day' AS last FROM {TABLE}")
    DAY = " : ".join(row["data"][0][name][:19] for name in ("first", "last"))


@check
def every_time_grain_groups():
    grains = call("GET", f"/api/v1/database/{database}")["result"]
    assert grains["backend"] == "postgresql"
    total = None
    for grain in "PT1S PT5S PT30S PT1M PT5M PT10M PT15M PT30M PT1H P1D P1W P1M P3M P1Y".split():
        rows = chart({"columns": [by_time(grain)], "metrics": ["count", metric("SUM")], "granularity": "__time", "time_range": DAY, "row_limit": 50000})
        if grain in ("PT1S", "PT5S", "PT30S"):
            assert rows, grain
            continue
        total = total or sum(row["count"] for row in rows)
        assert total > 0 and sum(row["count"] for row in rows) == total, (grain, total)


@check
def every_simple_metric_filters_and_sorts():
    filters = [
        {"col": "page", "op": "ILIKE", "val": "%a%"},
        {"col": "added", "op": ">=", "val": 0},
        {"col": "user", "op": "IS NOT NULL"},
        {"col": "page", "op": "NOT IN", "val": ["no such page", "nor 'this'"]},
    ]
    for aggregate in ("COUNT", "COUNT_DISTINCT", "MIN", "MAX", "AVG", "SUM"):
        query = {"columns": [dimension()], "metrics": [metric(aggregate)], "filters": filters, "row_limit": 10}
        rows = chart({**query, "orderby": [[metric(aggregate), False]]})
        values = [row[aggregate.lower()] for row in rows]
        assert values and values == sorted(values, reverse=True), (aggregate, values)


@check
def a_series_limit_groups_twice():
    query = {"columns": [by_time("PT1H"), dimension()], "metrics": ["count"], "series_columns": [dimension()], "series_limit": 3,
             "series_limit_metric": "count", "granularity": "__time", "time_range": DAY, "row_limit": 1000}
    rows = chart({**query, "orderby": [["count", False]]})
    assert len({row[dimension()] for row in rows}) == 3, rows[:5]


@check
def raw_rows_and_samples_come():
    rows = chart({"columns": ["__time", "page", "added"], "metrics": None, "orderby": [["__time", False]], "row_limit": 20})
    assert len(rows) == 20
    values = chart({"columns": [dimension()], "metrics": [], "orderby": [], "row_limit": 1000})
    assert len(values) == len({row[dimension()] for row in values}) > 1


@check
def own_expressions_are_checked_and_used():
    own = {"expressionType": "SQL", "sqlExpression": "SUM(added) / NULLIF(COUNT(*), 0)", "label": "mean"}
    rows = chart({"columns": [{"expressionType": "SQL", "sqlExpression": "EXTRACT(HOUR FROM __time)", "label": "hour"}], "metrics": [own], "row_limit": 100})
    assert len(rows) == 24, rows[:3]


@check
def sql_lab_runs_limits_and_names_what_is_wrong():
    answer = sql(f"SELECT * FROM {TABLE} LIMIT 5")
    assert answer["data"] and answer["columns"][0]["column_name"] == "__time", answer["columns"][0]
    wrong = sql(f"SELECT nope FROM {TABLE}", wanted=(422, 500))["errors"][0]
    # Superset knows PostgreSQL's words for it.
    assert wrong["error_type"] == "COLUMN_DOES_NOT_EXIST_ERROR", wrong
    wrong = sql("SELECT 1 FROM nowhere", wanted=(422, 500))["errors"][0]
    assert 'relation "nowhere" does not exist' in wrong["message"], wrong
    wrong = sql("SELECT 1 FRM x y", wanted=(400, 422, 500))["errors"][0]
    assert wrong["error_type"] in ("INVALID_SQL_ERROR", "SYNTAX_ERROR", "GENERIC_DB_ENGINE_ERROR"), wrong


@check
def a_query_is_validated_by_explain():
    body = {"sql": f"SELECT page FROM {TABLE}", "schema": "druid", "catalog": DATABASE}
    answer = client.post(f"/api/v1/database/{database}/validate_sql/", json=body, headers=HEADERS)
    assert answer.status_code in (200, 422), answer.data[:300]


def saved_chart(name, kind, params, query):
    form = {"viz_type": kind, "datasource": f"{data_set}__table", **params}
    context = {"datasource": {"id": data_set, "type": "table"}, "queries": [query], "form_data": form, "result_format": "json", "result_type": "full"}
    body = {"slice_name": name, "viz_type": kind, "datasource_id": data_set, "datasource_type": "table",
            "params": json.dumps(form), "query_context": json.dumps(context)}
    return call("POST", "/api/v1/chart/", body)["id"]


dashboard = None


@check
def a_dashboard_of_a_time_series_and_a_table_is_made():
    global dashboard
    series = {"x_axis": "__time", "time_grain_sqla": "PT1H", "metrics": [metric("SUM")], "groupby": [dimension()], "limit": 5, "row_limit": 10000,
              "timeseries_limit_metric": metric("SUM"), "order_desc": True, "adhoc_filters": [], "time_range": "No filter", "show_legend": True,
              "rich_tooltip": True, "x_axis_title": "", "y_axis_title": ""}
    table = {"query_mode": "aggregate", "groupby": ["page"], "metrics": ["count", metric("SUM"), metric("MAX")], "timeseries_limit_metric": "count",
             "order_desc": True, "row_limit": 12, "adhoc_filters": [], "time_range": "No filter", "show_cell_bars": True}
    ids = [
        saved_chart("Characters added, by hour", "echarts_timeseries_line", series, {"columns": [by_time("PT1H"), dimension()], "metrics": [metric("SUM")]}),
        saved_chart("Most edited pages", "table", table, {"columns": ["page"], "metrics": ["count"]}),
    ]
    place = lambda id, height: {"type": "CHART", "id": f"CHART-{id}", "children": [], "parents": ["ROOT_ID", "GRID_ID", f"ROW-{id}"],
                                "meta": {"chartId": id, "width": 12, "height": height, "sliceName": ""}}
    position = {"DASHBOARD_VERSION_KEY": "v2", "ROOT_ID": {"type": "ROOT", "id": "ROOT_ID", "children": ["GRID_ID"]},
                "GRID_ID": {"type": "GRID", "id": "GRID_ID", "children": [f"ROW-{id}" for id in ids], "parents": ["ROOT_ID"]}}
    for id, height in zip(ids, (48, 58)):
        position[f"ROW-{id}"] = {"type": "ROW", "id": f"ROW-{id}", "children": [f"CHART-{id}"], "parents": ["ROOT_ID", "GRID_ID"],
                                 "meta": {"background": "BACKGROUND_TRANSPARENT"}}
        position[f"CHART-{id}"] = place(id, height)
    dashboard = call("POST", "/api/v1/dashboard/", {"dashboard_title": "Wikipedia edits in Henge", "published": True, "position_json": json.dumps(position)})["id"]
    for id in ids:
        call("PUT", f"/api/v1/chart/{id}", {"dashboards": [dashboard]})
        assert call("GET", f"/api/v1/chart/{id}/data/")["result"][0]["rowcount"] > 0


def paint(file):
    """Serves Superset, and lets Chromium paint the dashboard."""
    import threading

    from playwright.sync_api import sync_playwright
    from werkzeug.serving import make_server

    server = make_server("127.0.0.1", 0, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    site = f"http://127.0.0.1:{server.port}"
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 1100, "height": 1000})
        page = context.new_page()
        context.request.post(f"{site}/login/", form={"username": "admin", "password": "admin"})
        page.goto(f"{site}/superset/dashboard/{dashboard}/?standalone=1", wait_until="networkidle")
        page.wait_for_selector("canvas", timeout=60_000)
        page.wait_for_selector("table tbody tr", timeout=60_000)
        # The lines are drawn by an animation.
        page.wait_for_timeout(3_000)
        page.screenshot(path=file)
        browser.close()
    server.shutdown()


if os.environ.get("HENGE_PICTURE"):
    @check
    def chromium_paints_the_dashboard():
        paint(os.environ["HENGE_PICTURE"])

shutil.rmtree(HOME, ignore_errors=True)
finish()
