"""Files that go into bundles as they are; none of them needs trtbench."""
