"""Our estimators in other libraries' training loops; each module needs its own library."""
