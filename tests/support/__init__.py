"""What several test files and benches share: photos, models and certificates made in code, clients and servers."""
