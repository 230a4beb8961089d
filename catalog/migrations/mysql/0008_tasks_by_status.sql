-- Servers of a cluster look all the time for tasks that are not done.
CREATE INDEX tasks_by_status ON tasks (status);
