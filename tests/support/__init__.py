"""What tests of several folders use. No test is in here, and no test imports from another."""
